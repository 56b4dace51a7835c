//! Comma-separated values as records of fields (RFC 4180), with quotes, and newlines between quotes.

use std::io::{self, BufRead, BufReader, Read};

/// The longest record. What has no newline for so long is no list.
const LONGEST: usize = 1 << 20;

/// What came next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A record, that began in this line.
    Record(u64),
    /// What is none, and why.
    Bad(u64, &'static str),
    /// Nothing more.
    End,
}

/// Where bytes come from.
pub(super) type Bytes = Box<dyn Read + Send>;

/// Reads records. Blank lines, and lines that begin with `#`, are skipped.
pub(super) struct Records {
    reader: BufReader<Bytes>,
    line: Vec<u8>,
    number: u64,
    text: Vec<u8>,
    /// Where each field ends in the text.
    ends: Vec<usize>,
}

/// Where in a record a byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Plain,
    Quoted,
    /// After a quote between quotes: the field's end, or the first half of a quote in it.
    Quote,
}

impl Records {
    pub(super) fn new(reader: BufReader<Bytes>) -> Self {
        Self { reader, line: Vec::new(), number: 0, text: Vec::new(), ends: Vec::new() }
    }

    /// Whether a part at least of what comes next has been read already.
    pub(super) fn is_next_there(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    /// How many fields the record has.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A field of the record.
    pub(super) fn field(&self, number: usize) -> &str {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        // The whole was looked at, and ends lie beside what was ASCII.
        std::str::from_utf8(&self.text[start..self.ends[number]]).unwrap_or_default()
    }

    /// The fields of the record.
    pub(super) fn fields(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|number| self.field(number))
    }

    /// Reads the next record.
    ///
    /// # Errors
    /// What the reader says.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        loop {
            if !self.read_line()? {
                return Ok(Next::End);
            }
            let first = self.number;
            if first == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
            if self.line.len() > LONGEST {
                return Ok(Next::Bad(first, "it is longer than 1 MiB"));
            }
            let start = self.line.trim_ascii_start();
            if start.is_empty() || start[0] == b'#' {
                continue;
            }
            self.text.clear();
            self.ends.clear();
            let mut at = At::Start;
            loop {
                at = match self.parse(at) {
                    Ok(at) => at,
                    Err(reason) => return Ok(Next::Bad(first, reason)),
                };
                if at != At::Quoted {
                    break;
                }
                if self.text.len() > LONGEST || !self.read_line()? {
                    return Ok(Next::Bad(first, "a quote in it is not closed"));
                }
            }
            let good = std::str::from_utf8(&self.text).is_ok();
            return Ok(if good { Next::Record(first) } else { Next::Bad(first, "it is not UTF-8") });
        }
    }

    /// Reads a line with its newline, as far as it is to be looked at; `false` at the end.
    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        let read = (&mut self.reader).take(LONGEST as u64 + 1).read_until(b'\n', &mut self.line)?;
        if read > LONGEST && self.line.last() != Some(&b'\n') {
            self.reader.skip_until(b'\n')?;
        }
        self.number += 1;
        Ok(read > 0)
    }

    /// Takes the line's bytes into fields.
    fn parse(&mut self, mut at: At) -> Result<At, &'static str> {
        let mut line = self.line.as_slice();
        if at != At::Quoted && line.ends_with(b"\n") {
            line = &line[..line.len() - 1];
        }
        for (place, byte) in line.iter().enumerate() {
            let ends = place + 2 >= line.len() && matches!(&line[place..], b"\n" | b"\r\n" | b"\r");
            at = match (at, byte) {
                (At::Quoted, b'"') => At::Quote,
                (At::Quoted, _) => {
                    self.text.push(*byte);
                    At::Quoted
                }
                (At::Quote, b'"') => {
                    self.text.push(b'"');
                    At::Quoted
                }
                (_, b',') => {
                    self.ends.push(self.text.len());
                    At::Start
                }
                (At::Start, b'"') => At::Quoted,
                _ if ends => break,
                (At::Quote, _) => return Err("something follows a closing quote"),
                _ => {
                    self.text.push(*byte);
                    At::Plain
                }
            };
        }
        if at != At::Quoted {
            self.ends.push(self.text.len());
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8]) -> Vec<Result<Vec<String>, (u64, &'static str)>> {
        let mut records = Records::new(BufReader::new(Box::new(io::Cursor::new(text.to_vec()))));
        let mut all = Vec::new();
        loop {
            match records.next().expect("memory can be read") {
                Next::Record(_) => all.push(Ok(records.fields().map(str::to_owned).collect())),
                Next::Bad(line, reason) => all.push(Err((line, reason))),
                Next::End => return all,
            }
        }
    }

    #[test]
    fn fields_are_as_rfc_4180_has_them() {
        let text = b"\xef\xbb\xbfa, b ,\r\n# no\n\n\"x,\"\"y\"\"\nz\",2\n3,\"\"\n\"q\"\r\nlast";
        let fields: Vec<_> = all(text).into_iter().map(|record| record.expect("all are good")).collect();
        assert_eq!(fields, [vec!["a", " b ", ""], vec!["x,\"y\"\nz", "2"], vec!["3", ""], vec!["q"], vec!["last"]]);
    }

    #[test]
    fn what_is_no_record_is_told_with_its_line_and_the_next_is_read() {
        let mut text = b"1\n\"a\"b\n2\n\xff\n3\n".to_vec();
        text.extend(vec![b'x'; 3 << 20]);
        text.extend(b"\n4\n\"open\n5\n");
        let expected = [
            Ok(vec!["1".to_owned()]),
            Err((2, "something follows a closing quote")),
            Ok(vec!["2".to_owned()]),
            Err((4, "it is not UTF-8")),
            Ok(vec!["3".to_owned()]),
            Err((6, "it is longer than 1 MiB")),
            Ok(vec!["4".to_owned()]),
            Err((8, "a quote in it is not closed")),
        ];
        assert_eq!(all(&text), expected);
    }

    proptest! {
        #[test]
        fn any_fields_come_back(
            rows in proptest::collection::vec(proptest::collection::vec("[a-c,\"\r\n#é]{0,6}", 1..4), 1..6)
        ) {
            let quoted = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
            let line = |row: &Vec<String>| row.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n";
            let text: String = rows.iter().map(line).collect();
            let back: Vec<Vec<String>> = all(text.as_bytes()).into_iter().map(|row| row.expect("quoted")).collect();
            prop_assert_eq!(back, rows);
        }

        #[test]
        fn no_bytes_crash_it(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            all(&text);
        }
    }
}
