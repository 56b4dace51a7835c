//! Which answers become rows, in ZMap's words (`--output-filter`): `success = 1 && (repeat = 0 || ttl > 64)`.
//!
//! An expression is parsed once and asked of each answer before it becomes a row, so that it may name fields that are not
//! among the columns.

use std::net::IpAddr;

use irl_targets::{Family, address_bits};

use crate::error::MeasureError;
use crate::rows::{Class, Row, microsecond, raw, responder, second, timestamps, unreachable};
use crate::schema::{Column, of_another};

/// Brackets within brackets: more would only exhaust the stack.
const DEPTH: usize = 64;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    text: String,
    root: Node,
    family: Family,
}

/// Fields that are addresses.
const ADDRESSES: [Column; 3] = [Column::Saddr, Column::Daddr, Column::IcmpResponder];

#[derive(Clone, Debug, PartialEq)]
enum Node {
    All(Vec<Self>),
    Any(Vec<Self>),
    Number(Column, Op, i128),
    Text(Column, Op, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Op {
    fn holds<T: PartialOrd + ?Sized>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

impl Filter {
    /// Parses an expression: comparisons of a field with a whole number, an address or a word, joined by `&&` (which binds
    /// more tightly), `||` and parentheses. The fields are those of a probe.
    ///
    /// # Errors
    /// [`MeasureError::Config`], with the place of what is wrong.
    pub fn parse(text: &str, family: Family, probe: &str) -> Result<Self, MeasureError> {
        let mut parser = Parser { text, at: 0, depth: 0, family, probe };
        let root = parser.any()?;
        parser.skip();
        if parser.at < text.len() {
            return Err(parser.wrong("&&, || or the end was expected here"));
        }
        Ok(Self { text: text.to_owned(), root, family })
    }

    /// The expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether an answer with this payload is wanted; `classes` are the names of the probe's own classes. What a field
    /// does not have is neither equal nor unequal to anything.
    pub(crate) fn wants(&self, row: &Row, classes: &[String], payload: &[u8]) -> bool {
        self.holds(&self.root, row, classes, payload)
    }

    fn holds(&self, node: &Node, row: &Row, classes: &[String], payload: &[u8]) -> bool {
        match node {
            Node::All(nodes) => nodes.iter().all(|node| self.holds(node, row, classes, payload)),
            Node::Any(nodes) => nodes.iter().any(|node| self.holds(node, row, classes, payload)),
            Node::Number(column, op, value) => number(*column, row, payload).is_some_and(|has| op.holds(&has, value)),
            Node::Text(column, op, value) => {
                let has = match (column, row.class) {
                    (Column::IcmpUnreachStr, _) => unreachable(self.family, row),
                    (_, Class::OfProbe { index, .. }) => classes.get(usize::from(index)).map(String::as_str),
                    _ => Some(row.class.name()),
                };
                has.is_some_and(|has| op.holds(has, value.as_str()))
            }
        }
    }
}

/// A field that is a number; `None` where the answer has none.
fn number(column: Column, row: &Row, payload: &[u8]) -> Option<i128> {
    Some(match column {
        Column::Saddr => in_order(row.saddr),
        Column::Daddr => in_order(row.daddr),
        Column::Sport => row.sport.into(),
        Column::Dport => row.dport.into(),
        Column::Seqnum => row.seqnum.into(),
        Column::Acknum => row.acknum.into(),
        Column::Window => row.window.into(),
        Column::Ttl => row.ttl.into(),
        Column::Ipid => row.ipid.into(),
        Column::Success => row.class.success().into(),
        Column::Repeat => row.repeat.into(),
        Column::ProbeNum => row.probe_num.into(),
        Column::Timestamp => row.timestamp.into(),
        Column::Rtt => row.rtt?.into(),
        Column::Cooldown => row.cooldown.into(),
        Column::TcpoptMss => row.tcp.map(|tcp| tcp.mss).filter(|mss| *mss != 0)?.into(),
        Column::TcpoptWscale => row.tcp.map(|tcp| tcp.wscale).filter(|scale| *scale != 255)?.into(),
        Column::TcpoptSackPerm => (row.tcp?.bits & irl_link::record::options::SACK_PERMITTED != 0).into(),
        Column::TcpoptTsVal => timestamps(row)?.ts_val.into(),
        Column::TcpoptTsEcr => timestamps(row)?.ts_ecr.into(),
        Column::IcmpType => row.icmp?.kind.into(),
        Column::IcmpCode => row.icmp?.code.into(),
        Column::IcmpResponder => in_order(responder(row)?),
        // The parser lets only those of IPv4 come here.
        Column::SaddrRaw => raw(Family::V4, row.saddr).cast_signed(),
        Column::DaddrRaw => raw(Family::V4, row.daddr).cast_signed(),
        Column::TimestampTs => second(row).into(),
        Column::TimestampUs => microsecond(row).into(),
        Column::OfProbe(field) => field.of(row, payload)?.into(),
        // Nor these.
        Column::Classification | Column::IcmpUnreachStr | Column::Data | Column::TimestampStr => return None,
    })
}

/// An address as a signed number, of which the higher address has the higher one.
fn in_order(address: u128) -> i128 {
    (address ^ 1 << 127).cast_signed()
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    family: Family,
    probe: &'a str,
}

impl Parser<'_> {
    /// Why a field cannot be compared, if that is so.
    fn incomparable(&self, column: Column) -> Option<&'static str> {
        match column {
            Column::Data => Some("the field data is bytes, which cannot be compared"),
            Column::TimestampStr => Some("the field timestamp_str is text: compare timestamp_ts, in s since 1970"),
            Column::SaddrRaw | Column::DaddrRaw if self.family == Family::V6 => {
                Some("this field of IPv6 is bytes, which cannot be compared: compare saddr or daddr")
            }
            _ => None,
        }
    }

    fn wrong(&self, what: impl AsRef<str>) -> MeasureError {
        let (before, rest) = self.text.split_at(self.at);
        let here = if rest.is_empty() { "at its end".to_owned() } else { format!("at {rest:?}") };
        let place = before.chars().count() + 1;
        MeasureError::Config(format!("--output-filter, character {place}, {here}: {}", what.as_ref()))
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Goes past a sign, if it is the next.
    fn take(&mut self, sign: &str) -> bool {
        self.skip();
        let there = self.rest().starts_with(sign);
        self.at += if there { sign.len() } else { 0 };
        there
    }

    fn any(&mut self) -> Result<Node, MeasureError> {
        let mut nodes = vec![self.all()?];
        while self.take("||") {
            nodes.push(self.all()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Any(nodes) })
    }

    fn all(&mut self) -> Result<Node, MeasureError> {
        let mut nodes = vec![self.one()?];
        while self.take("&&") {
            nodes.push(self.one()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::All(nodes) })
    }

    fn one(&mut self) -> Result<Node, MeasureError> {
        if !self.take("(") {
            return self.comparison();
        }
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.wrong(format!("more than {DEPTH} parentheses lie within each other")));
        }
        let node = self.any()?;
        if !self.take(")") {
            return Err(self.wrong("a closing parenthesis was expected here"));
        }
        self.depth -= 1;
        Ok(node)
    }

    /// The next word; empty where a sign is next.
    fn word(&mut self) -> String {
        self.skip();
        let end = self.rest().find(|sign: char| !(sign.is_alphanumeric() || "_.:-".contains(sign)));
        let word = self.rest()[..end.unwrap_or(self.rest().len())].to_owned();
        self.at += word.len();
        word
    }

    fn comparison(&mut self) -> Result<Node, MeasureError> {
        self.skip();
        let begins = self.at;
        let name = self.word();
        let all = Column::all(self.probe);
        let Some(column) = all.iter().copied().find(|column| column.name() == name) else {
            self.at = begins;
            if let Some(why) = of_another(self.probe, &name) {
                return Err(self.wrong(why));
            }
            let known = all.iter().filter(|column| self.incomparable(**column).is_none());
            let known: Vec<_> = known.map(|each| each.name()).collect();
            return Err(self.wrong(format!("a field was expected here, one of {}", known.join(" "))));
        };
        if let Some(why) = self.incomparable(column) {
            self.at = begins;
            return Err(self.wrong(why));
        }
        let signs = [
            ("!=", Op::NotEqual),
            ("<=", Op::LessOrEqual),
            (">=", Op::GreaterOrEqual),
            ("==", Op::Equal),
            ("=", Op::Equal),
            ("<", Op::Less),
            (">", Op::Greater),
        ];
        let Some((_, op)) = signs.into_iter().find(|(sign, _)| self.take(sign)) else {
            return Err(self.wrong("=, !=, <, <=, > or >= was expected here"));
        };
        self.skip();
        let begins = self.at;
        let fails = |parser: &mut Self, what: String| {
            parser.at = begins;
            Err(parser.wrong(what))
        };
        if matches!(column, Column::Classification | Column::IcmpUnreachStr) {
            if !matches!(op, Op::Equal | Op::NotEqual) {
                return fails(self, format!("{name} is a word, which is only equal (=) or not (!=)"));
            }
            let value = match self.quoted()? {
                Some(value) => value,
                None => self.word(),
            };
            if value.is_empty() {
                return fails(self, "a word was expected here, such as synack or \"port unreachable\"".to_owned());
            }
            return Ok(Node::Text(column, op, value));
        }
        let quoted = self.quoted()?;
        let value = quoted.unwrap_or_else(|| self.word());
        let number = if ADDRESSES.contains(&column) {
            let address = value.parse::<IpAddr>().ok().filter(|address| Family::of(*address) == self.family);
            address.map(address_bits).or_else(|| value.parse().ok()).map(in_order)
        } else {
            value.parse().ok()
        };
        match number {
            Some(number) => Ok(Node::Number(column, op, number)),
            None if ADDRESSES.contains(&column) => fails(self, format!("an {} address was expected here", self.family)),
            None => fails(self, "a whole number was expected here".to_owned()),
        }
    }

    /// Text in single or double quotes, if that is next.
    fn quoted(&mut self) -> Result<Option<String>, MeasureError> {
        self.skip();
        let Some(quote) = self.rest().chars().next().filter(|sign| "'\"".contains(*sign)) else { return Ok(None) };
        let Some(len) = self.rest()[1..].find(quote) else { return Err(self.wrong("these quotes are not closed")) };
        let value = self.rest()[1..=len].to_owned();
        self.at += len + 2;
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Icmp;

    fn wants(text: &str, row: &Row) -> bool {
        Filter::parse(text, Family::V4, "tcp_synscan").unwrap().wants(row, &[], &[])
    }

    #[test]
    fn expressions_mean_what_they_mean_in_zmap() {
        let row = Row { saddr: 0x0a00_0001, sport: 80, ttl: 64, rtt: Some(5), ..Row::default() };
        for text in [
            "success = 1",
            "success=1&&repeat=0",
            "success == 1 && repeat = 0",
            "(success = 1) && (repeat = 0)",
            "success = 0 || sport = 80",
            // && binds more tightly.
            "success = 1 || success = 0 && ttl = 1",
            "(success = 1 || success = 0) && ttl >= 64",
            "ttl < 65 && ttl <= 64 && ttl > 63 && ttl != 63",
            "classification = synack",
            "classification = \"synack\" && classification != rst",
            "saddr = 10.0.0.1 && saddr = '10.0.0.1' && saddr = 167772161 && saddr < 10.0.0.2",
            "rtt = 5",
        ] {
            assert!(wants(text, &row), "{text}");
        }
        for text in [
            "success = 0",
            "success = 1 && repeat = 1",
            "(success = 1 || success = 0) && ttl = 1",
            "classification = rst",
            "saddr = 10.0.0.2",
            // It has none.
            "icmp_type = 3",
            "icmp_type != 3",
            "icmp_unreach_str != \"port unreachable\"",
        ] {
            assert!(!wants(text, &row), "{text}");
        }
        let error = Row { class: Class::Icmp, icmp: Some(Icmp { kind: 3, code: 3, rest: None }), ..Row::default() };
        assert!(wants("icmp_unreach_str = \"port unreachable\" && icmp_type = 3 && icmp_code > 2", &error));
    }

    #[test]
    fn zmaps_other_fields_are_compared_as_it_has_them() {
        let error = Row {
            saddr: 0x0102_0304,
            daddr: 0x0a00_0001,
            timestamp: 1_795_467_691_123_456_789,
            responder: 0x0a00_0002,
            ..Row::default()
        };
        for text in [
            "saddr_raw = 67305985 && daddr_raw = 16777226",
            "timestamp_ts = 1795467691 && timestamp_us = 123456",
            "icmp_responder = 10.0.0.2 && icmp_responder != 10.0.0.3",
        ] {
            assert!(wants(text, &error), "{text}");
        }
        assert!(!wants("icmp_responder != 10.0.0.3", &Row::default()), "there was no error");
        let filter = Filter::parse("dns_rcode = 3 && dns_ancount = 0", Family::V4, "dns").unwrap();
        let header = [0, 0, 0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0];
        assert!(filter.wants(&error, &[], &header) && !filter.wants(&error, &[], &header[1..]));
    }

    #[test]
    fn classes_of_a_probe_of_ones_own_have_their_names() {
        let row = Row { class: Class::OfProbe { index: 1, success: true }, ..Row::default() };
        let names = ["no".to_owned(), "yes".to_owned()];
        let filter = Filter::parse("classification = yes && success = 1", Family::V6, "own").unwrap();
        assert!(filter.wants(&row, &names, &[]) && !filter.wants(&row, &[], &[]));
    }

    #[test]
    fn addresses_have_their_order_in_both_halves_of_ipv6() {
        let row = Row { saddr: 0xfd00 << 112, ..Row::default() };
        let filter = Filter::parse("saddr > 2001:db8::1 && saddr < fd00::1", Family::V6, "own").unwrap();
        assert!(filter.wants(&row, &[], &[]));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, place, what) in [
            ("", "character 1, at its end", "a field was expected"),
            ("succes = 1", "character 1, at \"succes = 1\"", "one of saddr daddr"),
            ("success = 1 &&", "character 15, at its end", "a field was expected"),
            ("success = 1 repeat = 0", "character 13", "&&, ||"),
            ("success", "character 8", "=, !=, <"),
            ("success = yes", "character 11, at \"yes\"", "a whole number"),
            ("success = 1.5", "character 11", "a whole number"),
            ("(success = 1", "character 13", "a closing parenthesis"),
            ("success = 1)", "character 12", "&&, ||"),
            ("classification > rst", "character 18", "only equal"),
            ("classification = ", "character 18", "a word was expected"),
            ("classification = 'rst", "character 18", "not closed"),
            ("saddr = ::1", "character 9", "an IPv4 address"),
            ("data = 1", "character 1", "bytes"),
            ("timestamp_str = 1", "character 1", "compare timestamp_ts"),
            ("ttl = 1 || stratum = 1", "character 12", "one of the probe ntp, and this is tcp_synscan"),
            ("rtt_us < 5", "character 1", "take rtt"),
            ("icmp_responder = ::1", "character 18", "an IPv4 address"),
            ("é = 1", "character 1", "a field was expected"),
        ] {
            let error = Filter::parse(text, Family::V4, "tcp_synscan").unwrap_err().to_string();
            assert!(error.contains(place) && error.contains(what), "{text}: {error}");
        }
        let error = Filter::parse("saddr_raw = 1", Family::V6, "udp").unwrap_err().to_string();
        assert!(error.contains("compare saddr"), "{error}");
        let deep = format!("{}success = 1{}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(Filter::parse(&deep, Family::V4, "tcp_synscan").unwrap_err().to_string().contains("within each other"));
    }
}
