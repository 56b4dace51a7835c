//! Exchanges: connect, let a session drive the dialogue, close, a row.

pub mod request;
pub mod rows;
pub mod schema;
pub mod session;
pub mod sessions;
pub mod status;
