//! The measurement loops.
