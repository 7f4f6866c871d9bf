//! Transports of emails: a mail server or a folder.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use crate::config::{SmtpTls, SmtpUrl};

/// Why no transport could be set up, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("cannot read the certificate file {}; use a PEM file that Genkan's user can read", .0.display())]
    Certificates(PathBuf),
    #[error("TLS cannot verify the mail server's name; use a host name")]
    Tls,
}

pub(super) enum Transport {
    Folder(PathBuf),
    Smtp(Box<AsyncSmtpTransport<Tokio1Executor>>),
}

/// A failed attempt to send an email. `why` contains neither an address nor text of the email.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) why: String,
    /// Whether further attempts are pointless: there is no such mailbox.
    pub(super) is_final: bool,
}

impl Transport {
    /// Makes an SMTP transport.
    ///
    /// `name` is what this machine calls itself in `EHLO`. `extra_ca` is a PEM file of authorities
    /// that are trusted in addition to the public ones.
    pub(super) fn smtp(
        server: &SmtpUrl,
        name: &str,
        extra_ca: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, TransportError> {
        let tls = match server.tls {
            // A server that does not offer STARTTLS is an error here. A fallback to plain text
            // would let an attacker in the path strip the encryption.
            SmtpTls::Off => Tls::None,
            SmtpTls::Implicit => Tls::Wrapper(tls_to(&server.host, extra_ca)?),
            SmtpTls::StartTls => Tls::Required(tls_to(&server.host, extra_ca)?),
            SmtpTls::Opportunistic => Tls::Opportunistic(tls_to(&server.host, extra_ca)?),
        };
        // "Dangerous" means that this builder leaves the choice of TLS to its caller: it was made
        // above.
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&server.host)
            .port(server.port)
            .tls(tls)
            .hello_name(ClientId::Domain(name.to_owned()))
            .timeout(Some(timeout));
        if let Some((user, password)) = &server.credentials {
            builder = builder.credentials(Credentials::new(user.expose().clone(), password.expose().clone()));
        }
        Ok(Self::Smtp(Box::new(builder.build())))
    }

    /// Sends an email. `id` is equal at every attempt.
    pub(super) async fn hand_over(&self, id: &str, message: Message) -> Result<(), Refusal> {
        match self {
            Self::Folder(folder) => {
                let (folder, name, bytes) = (folder.clone(), format!("{id}.eml"), message.formatted());
                // Writing and `fsync` block, so they do not run on a thread of the async runtime.
                let wrote = tokio::task::spawn_blocking(move || write_whole(&folder, &name, &bytes)).await;
                match wrote {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(cause)) => Err(Refusal::passing(format!("the folder: {}", cause.kind()))),
                    Err(_) => Err(Refusal::passing("the folder: writing broke off".to_owned())),
                }
            }
            Self::Smtp(server) => match server.send(message).await {
                Ok(_) => Ok(()),
                Err(cause) => Err(Refusal::of(&cause)),
            },
        }
    }
}

impl Refusal {
    pub(super) const fn passing(why: String) -> Self {
        Self { why, is_final: false }
    }

    /// Describes a failure. Servers repeat addresses in their replies: only the code is kept.
    fn of(cause: &lettre::transport::smtp::Error) -> Self {
        if let Some(code) = cause.status() {
            let code = u16::from(code);
            return Self {
                why: format!("the mail server answered {code}"),
                is_final: NO_MAILBOX.contains(&code),
            };
        }
        let why = if cause.is_timeout() {
            // A timeout can occur in any phase, so it is asked for first.
            "the mail server took too long"
        } else if cause.is_tls() {
            "TLS with the mail server failed"
        } else if cause.is_client() {
            "the mail server does not offer STARTTLS or a supported way to sign in"
        } else {
            "the mail server cannot be reached"
        };
        Self::passing(why.to_owned())
    }
}

/// Replies that further attempts do not change (RFC 5321 §4.2.3). Other 5xx replies often have a
/// cause that the operator can remove.
const NO_MAILBOX: [u16; 3] = [550, 551, 553];

/// Writes a file so that a program that watches the folder never sees half of it. A second attempt
/// replaces the file of the first.
fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    // Programs that watch a folder usually skip names with a leading dot.
    let unfinished = folder.join(format!(".{name}"));
    let mut options = std::fs::OpenOptions::new();
    // The file contains a code: no other user of this machine may read it.
    let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    // The content must be on disk before the name appears, or a power cut could leave an empty
    // file.
    file.sync_all()?;
    std::fs::rename(unfinished, folder.join(name))
}

fn tls_to(host: &str, extra_ca: Option<&Path>) -> Result<TlsParameters, TransportError> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(path) = extra_ca {
        let problem = || TransportError::Certificates(path.to_owned());
        let pem = std::fs::read(path).map_err(|_| problem())?;
        builder = builder.add_root_certificate(Certificate::from_pem(&pem).map_err(|_| problem())?);
    }
    builder.build().map_err(|_| TransportError::Tls)
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Folder(_) => "Transport::Folder",
            Self::Smtp(_) => "Transport::Smtp",
        })
    }
}
