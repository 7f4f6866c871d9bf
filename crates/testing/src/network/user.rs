//! A person with an account.

use genkan_protocol::syntax::Did;
use serde_json::{Value, json};

use crate::Answer;

/// A person with an account, and the session of their app.
#[derive(Clone, Debug)]
pub struct User {
    /// The account.
    pub did: Did,
    /// Their handle.
    pub handle: String,
    /// Their e-mail address.
    pub email: String,
    /// Their password.
    pub password: String,
    /// The app's access token.
    pub access: String,
    /// The app's refresh token.
    pub refresh: String,
}

impl User {
    /// The form that a person fills in at sign-up.
    pub fn form(name: &str) -> Value {
        json!({
            "handle": format!("{name}.genkan.test"),
            "email": format!("{name}@mail.example"),
            "password": format!("secret-of-{name}"),
        })
    }

    /// Returns the person for the answer to a sign-up.
    ///
    /// # Panics
    ///
    /// If it did not.
    #[track_caller]
    pub fn of(name: &str, answer: &Answer) -> Self {
        Self {
            did: answer.text("/did").parse().unwrap(),
            handle: answer.text("/handle"),
            email: format!("{name}@mail.example"),
            password: format!("secret-of-{name}"),
            access: answer.text("/accessJwt"),
            refresh: answer.text("/refreshJwt"),
        }
    }

    /// Returns this person with the tokens of another session answer.
    ///
    /// # Panics
    ///
    /// If it has none.
    #[track_caller]
    #[must_use]
    pub fn with_session(&self, answer: &Answer) -> Self {
        Self { access: answer.text("/accessJwt"), refresh: answer.text("/refreshJwt"), ..self.clone() }
    }
}
