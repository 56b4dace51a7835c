//! What the filter and the `live` engine share of the kernel's BPF interface.

mod mapping;
mod object;
mod privilege;

pub(crate) use mapping::{Mapping, page_size};
pub(crate) use object::{descriptor, load_error, map_error, map_mut, mapped, missing, program_error, program_mut};
pub use privilege::missing_capability;
