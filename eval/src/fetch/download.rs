//! One file over HTTP, to a file beside its place that grows; what was cut goes on where it ended.

use super::{
    Trouble,
    bar::Bar,
    beside,
    client::{Answer, Attempt, Client, text},
    sums,
    wanted::Wanted,
};
use crate::{
    endpoint::backoff::{self, Backoff},
    guard,
};
use headkv_files::{Error, whole};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};
use ureq::http::{HeaderMap, header};

/// Tries after the first.
const RETRIES: u32 = 5;

/// The longest wait between two tries, whatever the server asks for.
const LONGEST: Duration = Duration::from_secs(60);

/// Bytes that are read at once.
const CHUNK: usize = 1 << 16;

/// Why a try ended.
enum Ended {
    Stopped,
    Attempt(Attempt),
    Disk(Error),
}

impl From<Attempt> for Ended {
    fn from(attempt: Attempt) -> Self {
        Ended::Attempt(attempt)
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Ended::Disk(error)
    }
}

impl Client<'_> {
    /// Fetches a file to `part`, on from what is there, and checks its digest where one is known.
    pub(super) fn download(&self, file: &Wanted, part: &Path) -> Result<(), Trouble> {
        let tag = beside(part, ".tag");
        let bar = Bar::new(&file.name);
        let mut backoff = Backoff::new(self.sources.pause, LONGEST);
        let mut left = RETRIES;
        let digest = loop {
            // The client panics where it may start no thread to look a name up.
            let tried =
                guard::quietly(|| self.attempt(file, part, &tag, &bar)).unwrap_or_else(|why| {
                    Err(Attempt::again(format!("the request failed: {why}")).into())
                });
            match tried {
                Ok(digest) => break digest,
                Err(Ended::Stopped) => return Err(Trouble::Stopped),
                Err(Ended::Disk(error)) => return Err(error.into()),
                Err(Ended::Attempt(attempt)) if attempt.again && left > 0 && !attempt.dead => {
                    left -= 1;
                    bar.say(&format!("{}; asking again", attempt.why));
                    if !backoff::pause(backoff.wait(attempt.after), || self.stopped()) {
                        return Err(Trouble::Stopped);
                    }
                }
                Err(Ended::Attempt(Attempt { why, dead, .. })) => {
                    let kept = part.metadata().is_ok_and(|found| found.len() > 0);
                    let then = match (dead, kept) {
                        (true, _) => "; check the network, the same command goes on",
                        (false, true) => "; the same command goes on from what came",
                        (false, false) => "",
                    };
                    return Err(Trouble::Failed {
                        why: format!("{why}{then}"),
                        dead,
                    });
                }
            }
        };
        drop(bar);
        let known = self.sources.digest(&file.path).map(String::from);
        let now = sums::digest(part)?;
        let wrong = known.or(digest).filter(|expected| *expected != now);
        remove(&tag)?;
        if let Some(expected) = wrong {
            remove(part)?;
            return Err(Trouble::failed(format!(
                "{} has digest {now}, not {expected}; it was changed or damaged, and is not kept",
                self.url(file)
            )));
        }
        Ok(())
    }

    /// One request; the digest that the server named once the file is whole.
    fn attempt(
        &self,
        file: &Wanted,
        part: &Path,
        tag: &Path,
        bar: &Bar,
    ) -> Result<Option<String>, Ended> {
        let validator = fs::read_to_string(tag).ok();
        let there = part.metadata().map_or(0, |found| found.len());
        let from = validator.as_deref().filter(|_| there > 0);
        let Answer {
            mut response,
            digest,
        } = self.ask(file, from.map(|validator| (there, validator)))?;
        let headers = response.headers();
        let range = text(headers, header::CONTENT_RANGE.as_str()).and_then(content_range);
        let fits = from.is_some() && valid(headers).is_none_or(|now| Some(now) == from);
        let (start, total) = match (response.status().as_u16(), range) {
            (200, _) => {
                let length = text(headers, header::CONTENT_LENGTH.as_str());
                (0, length.and_then(|length| length.parse().ok()))
            }
            (206, Some((Some(start), total))) if fits && start == there => (start, total),
            (416, Some((None, Some(total)))) if total == there && from.is_some() => {
                return Ok(digest);
            }
            (206 | 416, _) => {
                // Another file than the one whose beginning is here.
                remove(tag)?;
                return Err(
                    Attempt::again(format!("{}: it changed meanwhile", self.url(file))).into(),
                );
            }
            _ => return Err(self.refusal(file, &response).into()),
        };
        if start == 0 {
            match valid(headers) {
                Some(validator) => whole::write(tag, validator)?,
                None => remove(tag)?,
            }
        }
        let mut target = open(part, start)?;
        bar.begin(start, total);
        let mut came = start;
        let mut chunk = vec![0; CHUNK];
        let mut body = response.body_mut().as_reader();
        loop {
            if self.stopped() {
                return Err(Ended::Stopped);
            }
            let read = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(why) => {
                    return Err(Attempt::again(format!(
                        "{}: cut after {came} bytes: {why}",
                        self.url(file)
                    ))
                    .into());
                }
            };
            target
                .write_all(&chunk[..read])
                .map_err(Error::io("write", part))?;
            came += read as u64;
            bar.at(came);
        }
        if total.is_some_and(|total| total != came) {
            let total = total.unwrap_or_default();
            let why = format!("{}: cut after {came} of {total} bytes", self.url(file));
            return Err(Attempt::again(why).into());
        }
        target.sync_all().map_err(Error::io("write", part))?;
        Ok(digest)
    }
}

/// What names this version of a file: a strong entity tag, or else when it was changed (RFC 9110, section 13.1.5).
fn valid(headers: &HeaderMap) -> Option<&str> {
    let tag = text(headers, header::ETAG.as_str()).filter(|tag| tag.starts_with('"'));
    tag.or_else(|| text(headers, header::LAST_MODIFIED.as_str()))
}

/// First byte and length of `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10`.
fn content_range(value: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = match range {
        "*" => None,
        range => Some(range.split_once('-')?.0.parse().ok()?),
    };
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((start, total))
}

/// Opens a file to be written on from that byte, which is its end or its beginning.
fn open(part: &Path, start: u64) -> Result<File, Error> {
    let opened = || {
        if let Some(folder) = part.parent() {
            fs::create_dir_all(folder)?;
        }
        if part.exists() {
            headkv_files::read::regular(part)?;
        }
        let mut options = OpenOptions::new();
        let options = options.create(true).write(true).truncate(false);
        let mut file = options.open(part)?;
        file.set_len(start)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    };
    opened().map_err(Error::io("write", part))
}

/// Removes a file, should it be there.
fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(why)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((Some(5), Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((Some(5), None)));
        assert_eq!(content_range("bytes */10"), Some((None, Some(10))));
        for wrong in ["", "bytes", "bytes 5/10", "bytes x-9/10", "lines 1-2/3"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn weak_tags_name_no_bytes() {
        let mut headers = HeaderMap::new();
        assert_eq!(valid(&headers), None);
        headers.insert(header::ETAG, "W/\"a\"".parse().unwrap());
        assert_eq!(valid(&headers), None);
        headers.insert(header::LAST_MODIFIED, "today".parse().unwrap());
        assert_eq!(valid(&headers), Some("today"));
        headers.insert(header::ETAG, "\"a\"".parse().unwrap());
        assert_eq!(valid(&headers), Some("\"a\""));
    }
}
