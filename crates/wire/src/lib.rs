//! Frames: build, parse, checksum, cookie; Probe values.
