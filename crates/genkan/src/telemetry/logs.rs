//! Log lines, written by a thread of their own.
//!
//! The queue to that thread is bounded. If the thread is blocked (a pipe that no one reads, a full
//! disk), lines are dropped and counted. No request ever waits for a log line.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use crate::config::{LogFormat, LogLevel, Telemetry};

/// Maximum number of lines in the queue. A line has about 200 bytes.
const QUEUE: usize = 8192;
/// Maximum time for which the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The logger of this process. Dropping it at the end of the process waits briefly for the last
/// lines.
#[derive(Debug)]
pub(crate) struct Logs {
    queue: SyncSender<Message>,
    done: Receiver<()>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Box<[u8]>),
    End,
}

impl Logs {
    /// Starts logging to standard error. Panics are logged as lines too.
    pub(crate) fn start(settings: &Telemetry) -> Self {
        let (logs, writer) = Self::to(io::stderr());
        let subscriber = subscriber(settings, writer);
        // It fails if a subscriber is set already, as in tests. The panic hook then stays as it is.
        if tracing::subscriber::set_global_default(subscriber).is_ok() {
            std::panic::set_hook(Box::new(|panic| {
                let place = panic.location().map(ToString::to_string).unwrap_or_default();
                let said = panic.payload_as_str().unwrap_or("no message");
                tracing::error!(panic.place = place, "panicked: {said}");
            }));
        }
        logs
    }

    /// Returns the counter of dropped lines.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    fn to(sink: impl Write + Send + 'static) -> (Self, Writer) {
        let (queue, lines) = sync_channel(QUEUE);
        // Room for one message, so that the thread can end although no one waits.
        let (finished, done) = sync_channel(1);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                write_all(&lines, sink);
                let _ = finished.try_send(());
            })
            .expect("a thread can be started");
        let dropped = Arc::new(AtomicU64::new(0));
        (Self { queue: queue.clone(), done, dropped: Arc::clone(&dropped) }, Writer { queue, dropped })
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        // A full queue is not waited for: a sink that blocks must not keep the process from ending.
        if self.queue.try_send(Message::End).is_ok() {
            let _ = self.done.recv_timeout(LAST_LINES);
        }
    }
}

fn write_all(lines: &Receiver<Message>, mut sink: impl Write) {
    loop {
        // Flush only when the queue is empty, so that a burst of lines is not a flush per line.
        let message = match lines.recv_timeout(Duration::ZERO) {
            Ok(message) => message,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let _ = sink.flush();
                match lines.recv() {
                    Ok(message) => message,
                    Err(_) => break,
                }
            }
        };
        match message {
            Message::Line(line) => drop(sink.write_all(&line)),
            Message::End => break,
        }
    }
    let _ = sink.flush();
}

fn subscriber(settings: &Telemetry, writer: Writer) -> impl Subscriber + Send + Sync {
    let level = match settings.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Libraries never log below warnings, whatever the level: their finer lines contain headers and
    // SQL.
    let filter = Targets::new().with_target("genkan", level).with_default(level.min(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match settings.log_format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    tracing_subscriber::registry().with(lines.with_filter(filter))
}

/// Puts each line into the queue, or drops and counts it.
#[derive(Clone, Debug)]
struct Writer {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Writer {
    /// Writes one event, which the subscriber passes as a whole. Line ends in it, which may come
    /// from a client, are escaped: otherwise they could forge a log line.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let body = event.strip_suffix(b"\n").unwrap_or(event);
        let mut line = Vec::with_capacity(body.len() + 1);
        for byte in body {
            match byte {
                // A value from outside must not start a line of its own, which could look like
                // another event.
                b'\n' => line.extend_from_slice(b"\\n"),
                b'\r' => line.extend_from_slice(b"\\r"),
                byte => line.push(*byte),
            }
        }
        line.push(b'\n');
        // A full queue drops the line. Requests never wait for the log.
        if self.queue.try_send(Message::Line(line.into_boxed_slice())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        // The length of the event and not of the line: the caller would send a missing rest again.
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::Sender;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Says that it was asked to write, and then never returns.
    struct Stuck(Sender<()>);

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(());
            loop {
                std::thread::park();
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn settings(log_format: LogFormat, log_level: LogLevel) -> Telemetry {
        Telemetry { log_format, log_level, request_log: true }
    }

    fn logged(format: LogFormat, level: LogLevel, act: impl FnOnce()) -> String {
        let kept = Kept::default();
        let (logs, writer) = Logs::to(kept.clone());
        tracing::subscriber::with_default(subscriber(&settings(format, level), writer), act);
        drop(logs);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let text = logged(LogFormat::Text, LogLevel::Info, || {
            tracing::info!("first\n2026-01-01T00:00:00Z ERROR forged: line\r");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("first\\n2026"));
        let text = logged(LogFormat::Json, LogLevel::Info, || tracing::info!(host.id = "a\nb", "said"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((line["message"].as_str(), line["host.id"].as_str()), (Some("said"), Some("a\nb")));
    }

    #[test]
    fn libraries_are_quieter_than_genkan() {
        let text = logged(LogFormat::Text, LogLevel::Trace, || {
            tracing::debug!("ours");
            tracing::info!(target: "hyper::proto", "authorization: Bearer x");
            tracing::warn!(target: "sqlx", "slow");
        });
        assert!(text.contains("ours") && text.contains("slow") && !text.contains("Bearer"), "{text}");
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_not_time() {
        let (asked, was_asked) = std::sync::mpsc::channel();
        let (logs, writer) = Logs::to(Stuck(asked));
        let dropped = logs.dropped();
        tracing::subscriber::with_default(
            subscriber(&settings(LogFormat::Text, LogLevel::Info), writer),
            || {
                tracing::info!("the one that is stuck");
                was_asked.recv().unwrap();
                for _ in 0..QUEUE + 10 {
                    tracing::info!("waits, or is dropped");
                }
            },
        );
        assert_eq!(dropped.load(Ordering::Relaxed), 10);
    }
}
