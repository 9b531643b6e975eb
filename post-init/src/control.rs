//! What the owner of the machine may ask of work in progress: to pause, to go on, to take less of the time.
//!
//! The wishes come from signals, from the control socket in the data directory or from the program that uses this library, and the
//! devices look at them between two batches. The socket speaks JSON: one line with a command, one line as the answer.
//!
//! ```text
//! {"command":"status"}               {"ok":true,"status":{"paused":false,"duty":100,"task":"initialising", …}}
//! {"command":"pause"}                while paused, GPUs hold no memory
//! {"command":"resume"}
//! {"command":"duty","percent":50}
//! ```

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use crate::event::{DeviceProgress, Event, Report};

/// Name of the control socket in the first data directory.
pub const SOCKET_FILE: &str = "post-init.sock";

/// Share of the time to compute, and whether to compute at all. Clones are the same control.
#[derive(Debug, Clone)]
pub struct Control(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    paused: AtomicBool,
    duty: AtomicU8,
    listens: AtomicBool,
    status: Mutex<Status>,
}

/// What the control socket tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// Whether somebody asked for a pause.
    pub paused: bool,
    /// Share of the time that devices compute, in percent.
    pub duty: u8,
    /// What is being done.
    pub task: &'static str,
    /// Labels done.
    pub labels_done: u64,
    /// All labels of the task.
    pub labels_total: u64,
    /// Labels per second of all devices over the last seconds.
    pub labels_per_second: f64,
    /// Estimated seconds left.
    pub eta_seconds: Option<f64>,
    /// Each device.
    pub devices: Vec<DeviceProgress>,
}

impl Control {
    /// To compute this share of the time, in percent.
    pub fn new(duty: u8) -> Self {
        let control = Self(Arc::new(Inner {
            paused: AtomicBool::new(false),
            duty: AtomicU8::new(100),
            listens: AtomicBool::new(false),
            status: Mutex::default(),
        }));
        control.set_duty(duty);
        control
    }

    /// Makes tasks that write open the control socket in their data directory.
    #[must_use]
    pub fn with_socket(self) -> Self {
        self.0.listens.store(true, Ordering::Relaxed);
        self
    }

    /// Asks all devices to stop after their batch and to give their memory back.
    pub fn pause(&self) {
        self.0.paused.store(true, Ordering::Relaxed);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.0.paused.store(false, Ordering::Relaxed);
    }

    /// Whether a pause is asked for.
    pub fn is_paused(&self) -> bool {
        self.0.paused.load(Ordering::Relaxed)
    }

    /// Sets the share of the time, in percent from 1 to 100.
    pub fn set_duty(&self, percent: u8) {
        self.0.duty.store(percent.clamp(1, 100), Ordering::Relaxed);
    }

    /// The share of the time, in percent.
    pub fn duty(&self) -> u8 {
        self.0.duty.load(Ordering::Relaxed)
    }

    /// How the task stands.
    pub fn status(&self) -> Status {
        let status = self.0.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Status { paused: self.is_paused(), duty: self.duty(), ..status }
    }

    /// Opens the socket if that is wanted; it is closed and removed when the answer is dropped. Work goes on without one, with a
    /// warning: paths of sockets are short, and some file systems have none.
    ///
    /// The caller holds the lock of the directory, so a socket that lies there is a dead one.
    #[cfg(unix)]
    pub(crate) fn listen(&self, dir: &Path, report: &dyn Report) -> Option<socket::Server> {
        if !self.0.listens.load(Ordering::Relaxed) {
            return None;
        }
        let path = dir.join(SOCKET_FILE);
        match socket::Server::start(self.clone(), path.clone()) {
            Ok(server) => Some(server),
            Err(error) => {
                report.warn(format!("no control socket at {}: {error}; signals still pause and resume", path.display()));
                None
            }
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn listen(&self, _: &Path, _: &dyn Report) -> Option<()> {
        None
    }

    /// Answers one line.
    fn answer(&self, line: &str) -> Answer {
        match serde_json::from_str(line) {
            Ok(Command::Status {}) => {}
            Ok(Command::Pause {}) => self.pause(),
            Ok(Command::Resume {}) => self.resume(),
            Ok(Command::Duty { percent: percent @ 1..=100 }) => self.set_duty(percent),
            Ok(Command::Duty { percent }) => return Answer::refuse(format!("{percent} is no percentage from 1 to 100")),
            Err(error) => return Answer::refuse(format!("not a command: {error}")),
        }
        Answer { ok: true, status: Some(self.status()), error: None }
    }
}

/// The task tells how it stands like it tells everybody else.
impl Report for Control {
    fn event(&self, event: &Event) {
        let mut status = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { task, labels_done, labels_total, labels_per_second, estimate_seconds } => {
                *status = Status {
                    task,
                    labels_done: *labels_done,
                    labels_total: *labels_total,
                    labels_per_second: *labels_per_second,
                    eta_seconds: *estimate_seconds,
                    ..Status::default()
                };
            }
            Event::Progress { labels_done, labels_total, labels_per_second, eta_seconds, devices, .. } => {
                *status = Status {
                    labels_done: *labels_done,
                    labels_total: *labels_total,
                    labels_per_second: *labels_per_second,
                    eta_seconds: *eta_seconds,
                    devices: devices.clone(),
                    ..*status
                };
            }
            _ => {}
        }
    }
}

/// A line of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Changes nothing.
    Status {},
    /// [`Control::pause`].
    Pause {},
    /// [`Control::resume`].
    Resume {},
    /// [`Control::set_duty`].
    Duty {
        /// Percent.
        percent: u8,
    },
}

/// The line that answers it.
#[derive(Debug, Serialize)]
struct Answer {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Answer {
    fn refuse(error: String) -> Self {
        Self { ok: false, status: None, error: Some(error) }
    }
}

#[cfg(unix)]
pub use socket::ask;

#[cfg(unix)]
mod socket {
    use std::{
        fs,
        io::{self, BufRead as _, BufReader, Read as _, Write as _},
        os::unix::net::{UnixListener, UnixStream},
        path::{Path, PathBuf},
        thread::JoinHandle,
        time::Duration,
    };

    use rustix::{fs::Mode, process::umask};

    use super::{Answer, Command, Control};
    use crate::stop::Stop;

    /// Longest line of a client, in bytes.
    const LONGEST_LINE: u64 = 4096;
    /// How long a client may take for it, and for taking the answer.
    const PATIENCE: Duration = Duration::from_millis(500);
    /// Time between two looks for clients.
    const TICK: Duration = Duration::from_millis(100);

    /// Serves clients one after the other.
    #[derive(Debug)]
    pub(crate) struct Server {
        path: PathBuf,
        stop: Stop,
        thread: Option<JoinHandle<()>>,
    }

    impl Server {
        pub(super) fn start(control: Control, path: PathBuf) -> io::Result<Self> {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // Nobody else may use it from the moment it exists.
            let before = umask(Mode::from_raw_mode(0o177));
            let listener = UnixListener::bind(&path);
            umask(before);
            let listener = listener?;
            listener.set_nonblocking(true)?;
            let stop = Stop::default();
            let stopped = stop.clone();
            let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
                while !stopped.is_set() {
                    match listener.accept() {
                        // A client that goes away in the middle harms nobody.
                        Ok((stream, _)) => drop(serve(&control, &stream)),
                        Err(_) => std::thread::sleep(TICK),
                    }
                }
            })?;
            Ok(Self { path, stop, thread: Some(thread) })
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.stop.set();
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
            let _ = fs::remove_file(&self.path);
        }
    }

    fn serve(control: &Control, stream: &UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = Vec::new();
        BufReader::new(stream.take(LONGEST_LINE)).read_until(b'\n', &mut line)?;
        let answer = match str::from_utf8(&line) {
            Ok(text) => control.answer(text),
            Err(error) => Answer::refuse(format!("not UTF-8: {error}")),
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        let mut stream = stream;
        stream.write_all(&text)
    }

    /// Sends a command to whoever works on this data directory; the line that came back.
    pub fn ask(dir: &Path, command: &Command) -> io::Result<String> {
        let mut stream = UnixStream::connect(dir.join(super::SOCKET_FILE))?;
        stream.set_read_timeout(Some(PATIENCE * 10))?;
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_obeyed_and_anything_else_is_refused() {
        let control = Control::new(100);
        assert!(control.answer(r#"{"command":"pause"}"#).ok && control.is_paused());
        assert!(control.answer(r#"{"command":"resume"}"#).ok && !control.is_paused());
        assert!(control.answer("{\"command\":\"duty\",\"percent\":30}\n").ok);
        assert_eq!(control.duty(), 30);
        for bad in ["", "{", "[]", r#"{"command":"stop"}"#, r#"{"command":"pause","for":3}"#, r#"{"command":"duty","percent":0}"#]
        {
            let answer = control.answer(bad);
            assert!(!answer.ok && answer.error.is_some(), "{bad}");
        }
        assert_eq!(control.answer(r#"{"command":"duty","percent":300}"#).status, None);
        assert_eq!((control.duty(), control.is_paused()), (30, false));
        let status = control.answer(r#"{"command":"status"}"#).status.unwrap();
        assert_eq!((status.duty, status.paused), (30, false));
    }
}
