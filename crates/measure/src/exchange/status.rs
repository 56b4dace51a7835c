//! How an exchange ended: ZGrab2's statuses, where in the dialogue it was, and who closed.

/// How an exchange ended, in ZGrab2's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Status {
    /// The dialogue was carried out as asked.
    Success,
    /// The SYN was answered by a RST.
    ConnectionRefused,
    /// No SYN was answered.
    ConnectionTimeout,
    /// The peer ended the connection before the dialogue was done.
    ConnectionClosed,
    /// The connection was there, and the dialogue was not done in time.
    IoTimeout,
    /// What came was not the protocol's.
    ProtocolError,
    /// The peer answered with an error of its protocol.
    ApplicationError,
    /// Anything else: the path says unreachable, or the run was ended.
    #[default]
    UnknownError,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::ConnectionRefused,
        Self::ConnectionTimeout,
        Self::ConnectionClosed,
        Self::IoTimeout,
        Self::ProtocolError,
        Self::ApplicationError,
        Self::UnknownError,
    ];

    /// ZGrab2's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ConnectionRefused => "connection-refused",
            Self::ConnectionTimeout => "connection-timeout",
            Self::ConnectionClosed => "connection-closed",
            Self::IoTimeout => "io-timeout",
            Self::ProtocolError => "protocol-error",
            Self::ApplicationError => "application-error",
            Self::UnknownError => "unknown-error",
        }
    }
}

/// Where in its course an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Stage {
    /// There was no connection.
    #[default]
    Connect,
    /// The request was not acknowledged whole, and nothing had come.
    Request,
    /// The response was waited for, or not complete.
    Response,
    /// The dialogue was done.
    Close,
}

impl Stage {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Request => "request",
            Self::Response => "response",
            Self::Close => "close",
        }
    }
}

/// Which side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClosedBy {
    /// We did.
    Us,
    /// The peer did.
    Peer,
}

impl ClosedBy {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Peer => "peer",
        }
    }
}

/// How an exchange ended, for its row. Durations are from the SYN, and null where its time is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ending {
    /// How.
    pub status: Status,
    /// Where in its course.
    pub stage: Stage,
    /// Who ended the connection; null where there was none, or nobody did.
    pub closed_by: Option<ClosedBy>,
    /// To the SYN-ACK.
    pub connect_ns: Option<u64>,
    /// To the first data.
    pub first_byte_ns: Option<u64>,
    /// To the end.
    pub close_ns: Option<u64>,
    /// Segments of ours that were sent again.
    pub retransmits: u16,
    /// Bytes that came, in order, kept or not.
    pub bytes: u64,
    /// Whether the response was longer than what is kept.
    pub truncated: bool,
}
