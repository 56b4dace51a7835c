//! Everything that touches the OS: engines, filter, policy point, neighbours.
