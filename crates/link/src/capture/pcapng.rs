//! Writes pcapng: one section, its interfaces, its packets with times in nanoseconds.

use std::io::{self, Write};

/// Block types.
pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
pub(super) const INTERFACE: u32 = 1;
pub(super) const ENHANCED_PACKET: u32 = 6;
/// What a section header begins with, in the byte order of its section.
pub(super) const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Option codes.
pub(super) const COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
pub(super) const IF_TSRESOL: u16 = 9;
pub(super) const IF_TSOFFSET: u16 = 14;
const SHB_OS: u16 = 3;
const SHB_USERAPPL: u16 = 4;
const EPB_FLAGS: u16 = 2;

/// Which way a packet went; the numbers are those of `epb_flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To us.
    Inbound = 1,
    /// From us.
    Outbound = 2,
}

/// A packet to be written.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The number of its interface, from 0, in the order of [`Writer::interface`].
    pub interface: u32,
    /// UTC in ns.
    pub time_ns: u64,
    /// What is there of it.
    pub bytes: &'a [u8],
    /// How long it was on the link.
    pub length: u32,
    /// Which way it went.
    pub direction: Direction,
    /// A remark, where there is one.
    pub comment: Option<&'a str>,
}

/// A file that grows packet by packet. Each call is one write, so that nothing waits in memory.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a section that was written by `program`, with a comment on all of it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn new(out: W, program: &str, comment: &str) -> io::Result<Self> {
        let mut writer = Self { out, block: Vec::new() };
        let start = writer.begin(SECTION_HEADER);
        writer.block.extend_from_slice(&BYTE_ORDER_MAGIC.to_le_bytes());
        writer.block.extend_from_slice(&1u16.to_le_bytes());
        writer.block.extend_from_slice(&0u16.to_le_bytes());
        // How long the section is, is not known.
        writer.block.extend_from_slice(&(-1i64).to_le_bytes());
        writer.option(COMMENT, comment.as_bytes());
        writer.option(SHB_OS, std::env::consts::OS.as_bytes());
        writer.option(SHB_USERAPPL, program.as_bytes());
        writer.end(start);
        writer.flush()?;
        Ok(writer)
    }

    /// Adds an interface, whose packets have times in ns.
    ///
    /// # Errors
    /// Those of writing.
    pub fn interface(&mut self, name: &str, link_type: u16) -> io::Result<()> {
        let start = self.begin(INTERFACE);
        self.block.extend_from_slice(&link_type.to_le_bytes());
        // Reserved, and no bound on how much is captured of a packet.
        self.block.extend_from_slice(&[0; 6]);
        self.option(IF_NAME, name.as_bytes());
        self.option(IF_TSRESOL, &[9]);
        self.end(start);
        self.flush()
    }

    /// Adds packets of interfaces that were added before.
    ///
    /// # Errors
    /// Those of writing: what of the packets is in the file then is not known.
    pub fn packets<'a>(&mut self, packets: impl IntoIterator<Item = Packet<'a>>) -> io::Result<()> {
        for packet in packets {
            let start = self.begin(ENHANCED_PACKET);
            self.block.extend_from_slice(&packet.interface.to_le_bytes());
            self.block.extend_from_slice(&((packet.time_ns >> 32) as u32).to_le_bytes());
            self.block.extend_from_slice(&(packet.time_ns as u32).to_le_bytes());
            // A frame is shorter than 64 KiB.
            self.block.extend_from_slice(&(packet.bytes.len() as u32).to_le_bytes());
            self.block.extend_from_slice(&packet.length.to_le_bytes());
            self.block.extend_from_slice(packet.bytes);
            self.pad();
            self.option(EPB_FLAGS, &(packet.direction as u32).to_le_bytes());
            if let Some(comment) = packet.comment {
                self.option(COMMENT, comment.as_bytes());
            }
            self.end(start);
        }
        self.flush()
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// Begins a block, and says where in memory it does.
    fn begin(&mut self, kind: u32) -> usize {
        let start = self.block.len();
        self.block.extend_from_slice(&kind.to_le_bytes());
        self.block.extend_from_slice(&[0; 4]);
        start
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        // What is longer than an option may be is cut.
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.block.extend_from_slice(&code.to_le_bytes());
        self.block.extend_from_slice(&(value.len() as u16).to_le_bytes());
        self.block.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    /// Ends a block and its options.
    fn end(&mut self, start: usize) {
        self.block.extend_from_slice(&[0; 4]);
        let length = ((self.block.len() - start + 4) as u32).to_le_bytes();
        self.block[start + 4..start + 8].copy_from_slice(&length);
        self.block.extend_from_slice(&length);
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.block);
        self.block.clear();
        written?;
        self.out.flush()
    }
}
