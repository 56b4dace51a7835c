//! The parser of TCP options on any bytes: what both parsers look at they read alike, and what is written is read back.
#![no_main]

use irl_tcp::Options;
use irl_wire::packet::TcpOptions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let read = Options::parse(bytes);
    let other = TcpOptions::parse(bytes);
    assert_eq!(
        (read.mss, read.window_scale, read.sack_permitted, read.timestamps),
        (other.mss, other.window_scale, other.sack_permitted, other.timestamps)
    );
    assert!(read.sacks.len() <= 4 && read.sacks.iter().count() == read.sacks.len());
    let mut again = Vec::new();
    if let Some(mss) = read.mss {
        again.extend([2, 4]);
        again.extend(mss.to_be_bytes());
    }
    again.extend(read.window_scale.iter().flat_map(|shift| [3, 3, *shift]));
    again.extend([4, 2].iter().filter(|_| read.sack_permitted));
    if let Some((value, echo)) = read.timestamps {
        again.extend([8, 10]);
        again.extend(value.to_be_bytes());
        again.extend(echo.to_be_bytes());
    }
    if !read.sacks.is_empty() {
        again.extend([5, 2 + 8 * read.sacks.len() as u8]);
        for (left, right) in read.sacks.iter() {
            again.extend(left.to_be_bytes());
            again.extend(right.to_be_bytes());
        }
    }
    assert_eq!(Options::parse(&again), read);
});
