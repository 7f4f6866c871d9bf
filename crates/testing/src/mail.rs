//! A mail server that keeps the emails it receives, or fails in the ways that real ones do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::loopback::locked;
use crate::network::within;

/// A mail server on loopback (RFC 5321, without TLS). It stops when this value is dropped.
#[derive(Debug)]
pub struct FakeMail {
    address: SocketAddr,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    emails: Mutex<Vec<Email>>,
    mood: Mutex<Mood>,
    /// Whether a client signed in with the password.
    signed_in: AtomicBool,
}

/// How a mail server behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Accepts everything.
    #[default]
    Well,
    /// Closes each connection at once.
    Away,
    /// Never answers.
    Silent,
    /// Answers 451 for every recipient.
    Busy,
    /// Answers 550 for every recipient and repeats the address, as servers do.
    NoMailbox,
    /// Accepts an email, but disconnects before it says so.
    Forgetful,
}

/// An email as received.
#[derive(Clone, Debug)]
pub struct Email {
    /// The sender of its envelope.
    pub from: String,
    /// The recipients of its envelope.
    pub to: Vec<String>,
    /// Head and body.
    pub raw: String,
}

impl Email {
    /// The value of a header, unfolded.
    pub fn header(&self, name: &str) -> String {
        // A folded header continues on a line that begins with a space (RFC 5322 §2.2.3).
        let head = self.raw.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n ", " ");
        let line = head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        line.unwrap_or_default()
    }

    /// Returns the code, which is on a line of its own.
    ///
    /// # Panics
    ///
    /// If no line is a code.
    #[track_caller]
    pub fn code(&self) -> String {
        let is_code = |line: &&str| {
            let upper = |text: &str| {
                text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
            };
            line.split_once('-').is_some_and(|(first, second)| upper(first) && upper(second))
        };
        self.raw
            .lines()
            .map(str::trim)
            .find(is_code)
            .unwrap_or_else(|| panic!("no code in\n{}", self.raw))
            .to_owned()
    }
}

impl FakeMail {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// If it cannot listen.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    // A client may disconnect at any point of the conversation. That is not a
                    // failure of the server.
                    let _ = converse(stream, &state).await;
                });
            }
        });
        Self { address, state, serving }
    }

    /// Its URL, for Genkan's settings.
    pub fn url(&self) -> String {
        format!("smtp://me:{PASSWORD}@{}", self.address)
    }

    /// Sets the behaviour for connections from now on.
    pub fn set(&self, mood: Mood) {
        *locked(&self.state.mood) = mood;
    }

    /// Whether a client has signed in.
    pub fn has_signed_in(&self) -> bool {
        self.state.signed_in.load(Ordering::SeqCst)
    }

    /// Returns every email so far, the oldest first.
    pub fn emails(&self) -> Vec<Email> {
        locked(&self.state.emails).clone()
    }

    /// Waits for an email to an address, and then drops all emails.
    ///
    /// # Panics
    ///
    /// If no email arrives in time.
    pub async fn email_to(&self, address: &str) -> Email {
        let mut found = None;
        within(Duration::from_secs(20), &format!("an email to {address}"), async || {
            found = self.emails().into_iter().rev().find(|email| email.to.iter().any(|to| to == address));
            found.is_some()
        })
        .await;
        // A later call must wait for a new email and not find this one again.
        locked(&self.state.emails).clear();
        found.unwrap()
    }
}

impl Drop for FakeMail {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The password of its one user.
pub const PASSWORD: &str = "the-mail-servers-password";

async fn converse(stream: TcpStream, state: &State) -> std::io::Result<()> {
    // Read once per connection, so that a change of mood does not affect a conversation that has
    // begun.
    let mood = *locked(&state.mood);
    match mood {
        Mood::Away => return Ok(()),
        Mood::Silent => {
            tokio::time::sleep(Duration::from_mins(10)).await;
            return Ok(());
        }
        Mood::Well | Mood::Busy | Mood::NoMailbox | Mood::Forgetful => {}
    }
    let mut stream = BufReader::new(stream);
    say(&mut stream, "220 mail.example ESMTP").await?;
    let (mut from, mut to) = (String::new(), Vec::new());
    loop {
        let Some(line) = hear(&mut stream).await? else { return Ok(()) };
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => say(&mut stream, "250-mail.example\r\n250-8BITMIME\r\n250 AUTH PLAIN").await?,
            "AUTH" => {
                let given = line.rsplit(' ').next().unwrap_or_default();
                // `AUTH PLAIN` is an empty identity, the name and the password, separated by NUL
                // (RFC 4616 §2).
                let expected = data_encoding::BASE64.encode(format!("\0me\0{PASSWORD}").as_bytes());
                if given == expected {
                    state.signed_in.store(true, Ordering::SeqCst);
                    say(&mut stream, "235 welcome").await?;
                } else {
                    say(&mut stream, "535 no").await?;
                }
            }
            "MAIL" => {
                from = path_of(&line);
                to.clear();
                say(&mut stream, "250 well").await?;
            }
            "RCPT" => match mood {
                Mood::Busy => say(&mut stream, "451 try again later").await?,
                Mood::NoMailbox => {
                    say(&mut stream, &format!("550 there is no {} here", path_of(&line))).await?;
                }
                _ => {
                    to.push(path_of(&line));
                    say(&mut stream, "250 well").await?;
                }
            },
            "DATA" => {
                say(&mut stream, "354 go on").await?;
                let mut raw = String::new();
                while let Some(line) = hear(&mut stream).await?.filter(|line| line != ".") {
                    // A leading dot was doubled by the client (RFC 5321 §4.5.2).
                    raw.push_str(line.strip_prefix('.').unwrap_or(&line));
                    raw.push_str("\r\n");
                }
                locked(&state.emails).push(Email { from: from.clone(), to: to.clone(), raw });
                // The email is kept, but the client never learns so and must send it again.
                if mood == Mood::Forgetful {
                    return Ok(());
                }
                say(&mut stream, "250 taken").await?;
            }
            "QUIT" => {
                say(&mut stream, "221 bye").await?;
                return Ok(());
            }
            _ => say(&mut stream, "250 well").await?,
        }
    }
}

async fn say(stream: &mut BufReader<TcpStream>, line: &str) -> std::io::Result<()> {
    stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).await
}

/// Reads a line. Returns `None` if the client has disconnected.
async fn hear(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// `a@b.c` of `MAIL FROM:<a@b.c> …`
fn path_of(line: &str) -> String {
    line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(path, _)| path).to_owned()
}
