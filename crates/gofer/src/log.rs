//! Logs: the debug log in the reference's three shapes, the error log's one record, FD 2.
//!
//! Belongs here: shapes, levels, the writing. Belongs elsewhere: what is worth saying.
//! Must hold: after the process is sealed a line costs `write(2)` on a descriptor that is already
//! open and nothing else, so nothing here opens, waits or asks for the time zone later on.

use std::fmt::{self, Arguments, Display, Write};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{Location, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use jail::violation::{self, Violation};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::flags::{Globals, LogFormat};

/// How often a write that would block is repeated before the line counts as lost. Nobody may hang
/// this process by not reading its log.
const WRITE_TRIES_MAX: u32 = 1000;

/// Room for a line that is made without allocating, in bytes.
const CUT_BYTES_MAX: usize = 512;

/// Where a signal handler finds the log.
static OF_VIOLATIONS: OnceLock<Arc<Log>> = OnceLock::new();

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Warning,
    Info,
    Debug,
}

/// Where this process's lines go.
#[derive(Debug)]
pub(crate) struct Log {
    debug: Option<OwnedFd>,
    error: Option<OwnedFd>,
    also_to_stderr: bool,
    /// FD 2 is the debug log itself: a line there need not be repeated.
    stderr_is_debug: bool,
    format: LogFormat,
    level: Level,
    utc_offset_seconds: i64,
    pid: u32,
    lost: AtomicU64,
}

/// The logs' descriptors, if the parent gave any.
#[derive(Debug, Default)]
pub(crate) struct LogDescriptors {
    pub(crate) error: Option<OwnedFd>,
    pub(crate) debug: Option<OwnedFd>,
    pub(crate) panic: Option<OwnedFd>,
}

impl Log {
    /// Opens what the flags name and the parent did not, and puts FD 2 where crashes belong.
    ///
    /// # Errors
    /// A file that cannot be opened or an unknown format, together with a log that can say so.
    pub(crate) fn open(globals: &Globals, given: LogDescriptors) -> Result<Log, (Log, String)> {
        let mut log = Log {
            also_to_stderr: globals.also_to_stderr
                && given.debug.is_none()
                && given.panic.is_none(),
            stderr_is_debug: given.panic.is_none() && given.debug.is_some(),
            debug: given.debug,
            error: given.error,
            format: globals.log_format.unwrap_or_default(),
            level: if globals.debug {
                Level::Debug
            } else {
                Level::Info
            },
            utc_offset_seconds: jail::clock::utc_offset_seconds(),
            pid: std::process::id(),
            lost: AtomicU64::new(0),
        };
        match log.complete(globals, given.panic) {
            Ok(()) => Ok(log),
            Err(message) => Err((log, message)),
        }
    }

    fn complete(&mut self, globals: &Globals, panic: Option<OwnedFd>) -> Result<(), String> {
        if let (None, Some(path)) = (&self.error, &globals.log) {
            self.error = Some(append_to(path).map_err(|e| cannot_open("--log", path, &e))?);
        }
        if let (None, Some(pattern), true) = (&self.debug, &globals.debug_log, globals.debug_gofers)
        {
            let path = expanded(pattern, &self.local_time(&now()));
            self.debug = Some(append_to(&path).map_err(|e| cannot_open("--debug-log", &path, &e))?);
        }
        if globals.log_format.is_none() && self.debug.is_some() {
            return Err("--debug-log-format wants text, json or json-k8s".to_owned());
        }
        let crashes = panic.as_ref().or(self.debug.as_ref());
        match crashes.map(rustix::stdio::dup2_stderr) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(errno)) => Err(format!("cannot duplicate the debug log over FD 2: {errno}")),
        }
    }

    /// Whether lines of this level are written at all.
    pub(crate) fn shows(&self, level: Level) -> bool {
        level <= self.level && (self.debug.is_some() || self.also_to_stderr)
    }

    #[track_caller]
    pub(crate) fn warning(&self, message: impl Display) {
        self.line(Level::Warning, format_args!("{message}"));
    }

    #[track_caller]
    pub(crate) fn info(&self, message: impl Display) {
        self.line(Level::Info, format_args!("{message}"));
    }

    #[track_caller]
    pub(crate) fn debug(&self, message: impl Display) {
        self.line(Level::Debug, format_args!("{message}"));
    }

    /// Says why the process cannot go on, everywhere somebody may look.
    #[track_caller]
    pub(crate) fn fatal(&self, message: impl Display) {
        let message = format!("{message}").replace('\n', " ");
        if let Some(error) = &self.error {
            // One write, no newline: readers decode the file as a sequence of JSON values.
            let mut record = String::new();
            let text = format_args!("{message}");
            // A String takes all.
            _ = self.object(&mut record, "msg", text, "error", &now());
            let _ = write_whole(error.as_fd(), record.as_bytes());
        }
        self.line(Level::Warning, format_args!("FATAL ERROR: {message}"));
        if !self.stderr_is_debug {
            let _ = write_whole(
                rustix::stdio::stderr(),
                format!("gofer: {message}\n").as_bytes(),
            );
        }
    }

    /// Lets a panic of any thread leave its place and message in the debug log, or on FD 2.
    pub(crate) fn watch_panics(log: &Arc<Log>) {
        let log = Arc::clone(log);
        std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            log.line(Level::Warning, format_args!("{panic}"));
            if !log.stderr_is_debug {
                let _ = write_whole(
                    rustix::stdio::stderr(),
                    format!("gofer: {panic}\n").as_bytes(),
                );
            }
        }));
    }

    /// Lets a forbidden system call of any thread leave its name in the logs and on FD 2.
    ///
    /// # Errors
    /// The host refused the signal handler.
    pub(crate) fn watch_violations(log: &Arc<Log>) -> Result<(), Errno> {
        OF_VIOLATIONS
            .set(Arc::clone(log))
            .map_err(|_| Errno::ALREADY)?;
        violation::tell(|violation| {
            if let Some(log) = OF_VIOLATIONS.get() {
                log.violation(violation);
            }
        })
    }

    /// In a signal handler, which may have interrupted anything: neither waits nor allocates.
    fn violation(&self, violation: &Violation) {
        let (now, text) = (now(), format_args!("{violation}"));
        let line = Cut::of(|out| self.shape(out, Level::Warning, Location::caller(), text, &now));
        if let Some(debug) = &self.debug {
            write_if_ready(debug.as_fd(), line.bytes());
        }
        if let Some(error) = &self.error {
            let record = Cut::of(|out| self.object(out, "msg", text, "error", &now));
            write_if_ready(error.as_fd(), record.bytes());
        }
        if !self.stderr_is_debug {
            let plain = Cut::of(|out| writeln!(out, "gofer: {text}"));
            write_if_ready(rustix::stdio::stderr(), plain.bytes());
        }
    }

    #[track_caller]
    fn line(&self, level: Level, message: Arguments<'_>) {
        if !self.shows(level) {
            return;
        }
        let line = self.shaped(level, Location::caller(), message, &now());
        if let Some(debug) = &self.debug {
            self.write_or_count(debug.as_fd(), &line);
        }
        if self.also_to_stderr {
            self.write_or_count(rustix::stdio::stderr(), &line);
        }
    }

    fn write_or_count(&self, fd: BorrowedFd<'_>, line: &str) {
        let lost = self.lost.load(Ordering::Relaxed);
        let notice = match lost {
            0 => String::new(),
            _ => self.shaped(
                Level::Warning,
                Location::caller(),
                format_args!("{lost} lines before this one could not be written"),
                &now(),
            ),
        };
        match write_whole(fd, format!("{notice}{line}").as_bytes()) {
            Ok(()) => _ = self.lost.fetch_sub(lost, Ordering::Relaxed),
            Err(_) => _ = self.lost.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn shaped(
        &self,
        level: Level,
        place: &Location<'_>,
        message: Arguments<'_>,
        now: &Moment,
    ) -> String {
        let mut line = String::new();
        // A String takes all.
        _ = self.shape(&mut line, level, place, message, now);
        line
    }

    fn shape(
        &self,
        out: &mut dyn Write,
        level: Level,
        place: &Location<'_>,
        message: Arguments<'_>,
        now: &Moment,
    ) -> fmt::Result {
        let file = place.file().rsplit('/').next().unwrap_or_default();
        let line = place.line();
        let (letter, name) = match level {
            Level::Warning => ('W', "warning"),
            Level::Info => ('I', "info"),
            Level::Debug => ('D', "debug"),
        };
        let key = match self.format {
            LogFormat::Text => {
                let t = self.local_time(now);
                return writeln!(
                    out,
                    "{letter}{:02}{:02} {:02}:{:02}:{:02}.{:06} {:7} {file}:{line}] {message}",
                    t.month,
                    t.day,
                    t.hour,
                    t.minute,
                    t.second,
                    now.nanoseconds / 1000,
                    self.pid
                );
            }
            LogFormat::Json => "msg",
            LogFormat::JsonK8s => "log",
        };
        let message = format_args!("{file}:{line}] {message}");
        self.object(out, key, message, name, now)?;
        out.write_char('\n')
    }

    fn object(
        &self,
        out: &mut dyn Write,
        key: &str,
        message: Arguments<'_>,
        level: &str,
        now: &Moment,
    ) -> fmt::Result {
        write!(out, r#"{{"{key}":""#)?;
        JsonEscaped(out).write_fmt(message)?;
        write!(
            out,
            r#"","level":"{level}","time":"{}"}}"#,
            self.rfc3339(now)
        )
    }

    fn local_time(&self, now: &Moment) -> Calendar {
        Calendar::of(now.seconds.saturating_add(self.utc_offset_seconds))
    }

    fn rfc3339(&self, now: &Moment) -> Rfc3339 {
        Rfc3339 {
            local: self.local_time(now),
            nanoseconds: now.nanoseconds,
            utc_offset_minutes: self.utc_offset_seconds / 60,
        }
    }
}

struct Rfc3339 {
    local: Calendar,
    nanoseconds: i64,
    utc_offset_minutes: i64,
}

impl Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.local;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            t.year, t.month, t.day, t.hour, t.minute, t.second
        )?;
        let (mut fraction, mut digits) = (self.nanoseconds, 9);
        if fraction != 0 {
            while fraction % 10 == 0 {
                (fraction, digits) = (fraction / 10, digits - 1);
            }
            write!(f, ".{fraction:0digits$}")?;
        }
        if self.utc_offset_minutes == 0 {
            return f.write_char('Z');
        }
        let sign = if self.utc_offset_minutes < 0 {
            '-'
        } else {
            '+'
        };
        let size = self.utc_offset_minutes.unsigned_abs();
        write!(f, "{sign}{:02}:{:02}", size / 60, size % 60)
    }
}

/// A message inside a JSON string.
pub(crate) struct JsonText<'a>(pub(crate) &'a str);

impl Display for JsonText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        JsonEscaped(f).write_str(self.0)
    }
}

/// Writes what is written to it as it stands inside a JSON string.
struct JsonEscaped<'w>(&'w mut dyn Write);

impl Write for JsonEscaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' | '\\' => write!(self.0, "\\{c}")?,
                '\n' => self.0.write_str("\\n")?,
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    write!(self.0, "\\u{:04x}", u32::from(c))?;
                }
                c if c.is_control() => write!(self.0, "\\u{:04x}", u32::from(c))?,
                c => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A line made without allocating; what does not fit is cut off.
struct Cut {
    room: [u8; CUT_BYTES_MAX],
    length: usize,
}

impl Cut {
    fn of(make: impl FnOnce(&mut Cut) -> fmt::Result) -> Cut {
        let mut cut = Cut {
            room: [0; CUT_BYTES_MAX],
            length: 0,
        };
        // An error only means that it was cut off.
        _ = make(&mut cut);
        cut
    }

    fn bytes(&self) -> &[u8] {
        self.room.get(..self.length).unwrap_or_default()
    }
}

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left = self.room.get_mut(self.length..).unwrap_or_default();
        let fits = left.len().min(text.len());
        for (to, from) in left.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        self.length += fits;
        if fits == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

/// One write, if whoever reads leaves room for it now.
fn write_if_ready(fd: BorrowedFd<'_>, bytes: &[u8]) {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let ready = poll(&mut polled, Some(&now)).is_ok()
        && polled.iter().all(|p| p.revents().contains(PollFlags::OUT));
    if ready {
        // The process ends: nobody is left to be told that it has failed.
        _ = rustix::io::write(fd, bytes);
    }
}

fn append_to(path: &Path) -> io::Result<OwnedFd> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)
        .map(OwnedFd::from)
}

fn cannot_open(flag: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot open {flag} {}: {error}", path.display())
}

/// The file a `--debug-log` pattern means for this process.
fn expanded(pattern: &Path, t: &Calendar) -> PathBuf {
    let Some(pattern) = pattern.to_str() else {
        return pattern.to_owned();
    };
    let named = match pattern.ends_with('/') {
        true => format!("{pattern}runsc.log.%TIMESTAMP%.%COMMAND%.txt"),
        false => pattern.to_owned(),
    };
    let stamp = format!(
        "{:04}{:02}{:02}-{:02}{:02}{:02}.000000",
        t.year, t.month, t.day, t.hour, t.minute, t.second
    );
    named
        .replace("%TIMESTAMP%", &stamp)
        .replace("%COMMAND%", "gofer")
        .into()
}

fn write_whole(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    let mut tries = 0;
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) if tries < WRITE_TRIES_MAX => tries += 1,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

struct Moment {
    seconds: i64,
    nanoseconds: i64,
}

fn now() -> Moment {
    let now = clock_gettime(ClockId::Realtime);
    Moment {
        seconds: now.tv_sec,
        nanoseconds: now.tv_nsec,
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Calendar {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

const DAY_SECONDS: i64 = 86_400;
/// Days of 400 years, after which the Gregorian calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// Days from 1 March of year 0, where leap days fall at the end of the year, to 1970.
const MARCH_0_TO_1970_DAYS: i64 = 719_468;

impl Calendar {
    /// Seconds since 1970 as a date of the proleptic Gregorian calendar (Howard Hinnant's
    /// `civil_from_days`).
    fn of(seconds: i64) -> Calendar {
        let days = seconds.div_euclid(DAY_SECONDS) + MARCH_0_TO_1970_DAYS;
        let second_of_day = seconds.rem_euclid(DAY_SECONDS);
        let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        Calendar {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may die where it stands")]
    use super::*;

    /// 14 March 2024, 09:26:53.589793 in UTC.
    const PI: Moment = Moment {
        seconds: 1_710_408_413,
        nanoseconds: 589_793_000,
    };

    fn log(format: LogFormat, utc_offset_seconds: i64) -> Log {
        Log {
            debug: None,
            error: None,
            also_to_stderr: false,
            stderr_is_debug: false,
            format,
            level: Level::Info,
            utc_offset_seconds,
            pid: 1,
            lost: AtomicU64::new(0),
        }
    }

    #[track_caller]
    fn line(log: &Log, message: &str) -> String {
        let line = log.shaped(
            Level::Info,
            Location::caller(),
            format_args!("{message}"),
            &PI,
        );
        line.replace(
            &format!("log.rs:{}", Location::caller().line()),
            "FILE:LINE",
        )
    }

    #[test]
    fn each_format_has_the_shape_that_collectors_match() {
        assert_eq!(
            line(&log(LogFormat::Text, 0), "Serving"),
            "I0314 09:26:53.589793       1 FILE:LINE] Serving\n"
        );
        assert_eq!(
            line(&log(LogFormat::Json, 0), "a \"b\" <c>\n\u{1}"),
            "{\"msg\":\"FILE:LINE] a \\\"b\\\" \\u003cc\\u003e\\n\\u0001\",\"level\":\"info\",\
             \"time\":\"2024-03-14T09:26:53.589793Z\"}\n"
        );
        assert!(line(&log(LogFormat::JsonK8s, 0), "x").starts_with("{\"log\":\""));
    }

    #[test]
    fn times_are_local() {
        let times =
            [-5400, 19_800, 0].map(|offset| log(LogFormat::Json, offset).rfc3339(&PI).to_string());
        assert_eq!(
            times,
            [
                "2024-03-14T07:56:53.589793-01:30",
                "2024-03-14T14:56:53.589793+05:30",
                "2024-03-14T09:26:53.589793Z"
            ]
        );
        let whole = Moment {
            seconds: 0,
            nanoseconds: 0,
        };
        assert_eq!(
            log(LogFormat::Json, 0).rfc3339(&whole).to_string(),
            "1970-01-01T00:00:00Z"
        );
    }

    #[test]
    fn the_calendar_knows_leap_days_and_ends_of_years() {
        let date = |seconds| {
            let t = Calendar::of(seconds);
            (t.year, t.month, t.day)
        };
        assert_eq!(date(951_782_400), (2000, 2, 29));
        assert_eq!(date(1_709_164_800), (2024, 2, 29));
        assert_eq!(date(1_735_689_599), (2024, 12, 31));
        assert_eq!(date(-1), (1969, 12, 31));
    }

    #[test]
    fn a_fatal_error_leaves_one_json_value_without_a_newline() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = log(LogFormat::Text, 0);
        log.error = Some(file.reopen().unwrap().into());
        log.fatal("the mount /x\nis gone");
        let text = std::fs::read_to_string(file.path()).unwrap();
        let start = "{\"msg\":\"the mount /x is gone\",\"level\":\"error\",\"time\":\"";
        assert!(text.starts_with(start) && text.ends_with("\"}"), "{text}");
    }

    #[test]
    fn a_violation_is_told_in_every_log_and_waits_for_nobody() {
        let violation = Violation {
            number: 165,
            name: Some("mount"),
            thread: 3,
        };
        for (format, start) in [
            (LogFormat::Text, "W"),
            (LogFormat::Json, "{\"msg\":\""),
            (LogFormat::JsonK8s, "{\"log\":\""),
        ] {
            let (errors, lines) = (
                tempfile::NamedTempFile::new().unwrap(),
                tempfile::NamedTempFile::new().unwrap(),
            );
            let mut log = log(format, 0);
            log.error = Some(errors.reopen().unwrap().into());
            log.debug = Some(lines.reopen().unwrap().into());
            log.stderr_is_debug = true;
            log.violation(&violation);
            let line = std::fs::read_to_string(lines.path()).unwrap();
            assert!(line.starts_with(start) && line.ends_with('\n'), "{line}");
            assert!(line.contains("165 (mount) of thread 3"), "{line}");
            let record = std::fs::read_to_string(errors.path()).unwrap();
            let start = "{\"msg\":\"system call 165 (mount) of thread 3 ";
            assert!(record.starts_with(start), "{record}");
            assert!(
                record.contains("\"level\":\"error\",\"time\":\""),
                "{record}"
            );
        }
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        let page = [std::io::IoSlice::new(&[0; 4096])];
        // Until it is full: then a write would wait for ever.
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while rustix::io::writev(&writer, &page).is_ok() {}
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        let mut log = log(LogFormat::Text, 0);
        log.debug = Some(writer);
        log.stderr_is_debug = true;
        log.violation(&violation);
    }

    #[test]
    fn what_does_not_fit_a_line_made_without_allocating_is_cut_off() {
        let cut = Cut::of(|out| write!(out, "a{}b", "x".repeat(CUT_BYTES_MAX)));
        assert_eq!(cut.bytes().len(), CUT_BYTES_MAX);
        assert!(cut.bytes().starts_with(b"axx"));
    }

    #[test]
    fn a_full_pipe_loses_lines_and_says_so_later() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let mut log = log(LogFormat::Text, 0);
        log.debug = Some(writer);
        let long = "x".repeat(4000);
        for _ in 0..40 {
            log.info(&long);
        }
        assert!(log.lost.load(Ordering::Relaxed) > 0, "the pipe was full");
        let mut buffer = vec![0; 1 << 20];
        while rustix::io::read(&reader, &mut buffer[..]).is_ok_and(|read| read > 0) {}
        log.info("after");
        let read = rustix::io::read(&reader, &mut buffer[..]).unwrap();
        let text = String::from_utf8_lossy(&buffer[..read]);
        assert!(
            text.contains("could not be written\n") && text.ends_with("] after\n"),
            "{text}"
        );
    }

    #[test]
    fn a_debug_log_directory_gets_a_file_named_after_the_command() {
        let t = Calendar::of(PI.seconds);
        assert_eq!(
            expanded(Path::new("/logs/"), &t),
            Path::new("/logs/runsc.log.20240314-092653.000000.gofer.txt")
        );
        assert_eq!(
            expanded(Path::new("/l/%COMMAND%.log"), &t),
            Path::new("/l/gofer.log")
        );
    }
}
