//! Which answers become rows, in ZMap's words (`--output-filter`): `success = 1 && (repeat = 0 || ttl > 64)`.
//!
//! An expression is parsed once and asked of each answer before it becomes a row, so that it may name fields that are not
//! among the columns.

use std::net::IpAddr;

use irl_targets::{Family, address_bits};

use crate::error::MeasureError;
use crate::rows::{Class, Row, timestamps, unreachable};
use crate::schema::Column;

/// Brackets within brackets: more would only exhaust the stack.
const DEPTH: usize = 64;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    text: String,
    root: Node,
    family: Family,
}

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
    /// more tightly), `||` and parentheses.
    ///
    /// # Errors
    /// [`MeasureError::Config`], with the place of what is wrong.
    pub fn parse(text: &str, family: Family) -> Result<Self, MeasureError> {
        let mut parser = Parser { text, at: 0, depth: 0, family };
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

    /// Whether an answer is wanted; `classes` are the names of the probe's own classes. What a field does not have is
    /// neither equal nor unequal to anything.
    pub(crate) fn wants(&self, row: &Row, classes: &[String]) -> bool {
        self.holds(&self.root, row, classes)
    }

    fn holds(&self, node: &Node, row: &Row, classes: &[String]) -> bool {
        match node {
            Node::All(nodes) => nodes.iter().all(|node| self.holds(node, row, classes)),
            Node::Any(nodes) => nodes.iter().any(|node| self.holds(node, row, classes)),
            Node::Number(column, op, value) => number(*column, row).is_some_and(|has| op.holds(&has, value)),
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
fn number(column: Column, row: &Row) -> Option<i128> {
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
        Column::IcmpType => row.icmp?.0.into(),
        Column::IcmpCode => row.icmp?.1.into(),
        // The parser lets no other come here.
        Column::Classification | Column::IcmpUnreachStr | Column::Data => return None,
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
}

impl Parser<'_> {
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
        let Ok(column) = Column::by_name(&name) else {
            self.at = begins;
            let known: Vec<_> =
                Column::ALL.iter().filter(|column| **column != Column::Data).map(|each| each.name()).collect();
            return Err(self.wrong(format!("a field was expected here, one of {}", known.join(" "))));
        };
        if column == Column::Data {
            self.at = begins;
            return Err(self.wrong("the field data is bytes, which cannot be compared"));
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
        let number = if matches!(column, Column::Saddr | Column::Daddr) {
            let address = value.parse::<IpAddr>().ok().filter(|address| Family::of(*address) == self.family);
            address.map(address_bits).or_else(|| value.parse().ok()).map(in_order)
        } else {
            value.parse().ok()
        };
        match number {
            Some(number) => Ok(Node::Number(column, op, number)),
            None if matches!(column, Column::Saddr | Column::Daddr) => {
                fails(self, format!("an {} address was expected here", self.family))
            }
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

    fn wants(text: &str, row: &Row) -> bool {
        Filter::parse(text, Family::V4).unwrap().wants(row, &[])
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
        let error = Row { class: Class::Icmp, icmp: Some((3, 3)), ..Row::default() };
        assert!(wants("icmp_unreach_str = \"port unreachable\" && icmp_type = 3 && icmp_code > 2", &error));
    }

    #[test]
    fn classes_of_a_probe_of_ones_own_have_their_names() {
        let row = Row { class: Class::OfProbe { index: 1, success: true }, ..Row::default() };
        let names = ["no".to_owned(), "yes".to_owned()];
        let filter = Filter::parse("classification = yes && success = 1", Family::V6).unwrap();
        assert!(filter.wants(&row, &names) && !filter.wants(&row, &[]));
    }

    #[test]
    fn addresses_have_their_order_in_both_halves_of_ipv6() {
        let row = Row { saddr: 0xfd00 << 112, ..Row::default() };
        let filter = Filter::parse("saddr > 2001:db8::1 && saddr < fd00::1", Family::V6).unwrap();
        assert!(filter.wants(&row, &[]));
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
            ("é = 1", "character 1", "a field was expected"),
        ] {
            let error = Filter::parse(text, Family::V4).unwrap_err().to_string();
            assert!(error.contains(place) && error.contains(what), "{text}: {error}");
        }
        let deep = format!("{}success = 1{}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(Filter::parse(&deep, Family::V4).unwrap_err().to_string().contains("within each other"));
    }
}
