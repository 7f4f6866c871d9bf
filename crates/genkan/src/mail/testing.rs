//! A place for the emails of tests.

use std::fs;

use tempfile::TempDir;

/// A folder that emails are written to instead of being sent. It is removed with this value.
#[derive(Debug)]
pub(crate) struct MailFolder {
    folder: TempDir,
    path: String,
}

impl MailFolder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        Self { folder, path }
    }

    /// The settings under which mail goes to this folder.
    pub(crate) fn settings(&self) -> [(&str, &str); 2] {
        [("GENKAN_MAIL_FOLDER", &self.path), ("GENKAN_MAIL_FROM", "hello@example.com")]
    }

    /// Removes the folder, so that no email can be written to it.
    pub(crate) fn remove(&self) {
        fs::remove_dir_all(&self.folder).unwrap();
    }

    /// Makes the folder again after [`Self::remove`].
    pub(crate) fn restore(&self) {
        fs::create_dir(&self.folder).unwrap();
    }

    /// Returns all emails in the folder.
    pub(crate) fn emails(&self) -> Vec<String> {
        let files = fs::read_dir(&self.folder).unwrap();
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }

    /// Returns all emails in the folder, and removes them from it.
    pub(crate) fn take_emails(&self) -> Vec<String> {
        let emails = self.emails();
        for file in fs::read_dir(&self.folder).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        emails
    }
}
