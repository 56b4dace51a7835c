//! Python bindings of irlstack.
