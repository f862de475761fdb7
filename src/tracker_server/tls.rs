//! The certificate that the tracker shows to HTTPS clients, from files that may be replaced while it runs.

use crate::limits::TLS_FILE_LEN_MAX;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

/// A certificate and its key, both as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and a root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used; the fault of who runs the tracker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFilesError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {what} as PEM", .path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Certificate and key do not belong together, or are of a kind that is not spoken.
    #[error("{} and {} cannot be used together: {why}", .files.certificate.display(), .files.key.display())]
    Unusable {
        /// The files.
        files: TlsFiles,
        /// The TLS library's words.
        why: String,
    },
}

impl TlsFiles {
    /// What connections are accepted with, as the files stand now. Blocks while it reads.
    pub(super) fn load(&self) -> Result<TlsAcceptor, TlsFilesError> {
        let not_pem = |path: &Path, what| TlsFilesError::NotPem { path: path.to_owned(), what };
        let certificate = read(&self.certificate)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| not_pem(&self.certificate, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|_| not_pem(&self.key, "private key"))?;
        let unusable = |why: String| TlsFilesError::Unusable { files: self.clone(), why };
        let mut settings = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| unusable(error.to_string()))?;
        settings.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(settings)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFilesError> {
    let unreadable = |source| TlsFilesError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(TLS_FILE_LEN_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (one, other) = (made(), made());
        std::fs::write(at("cert"), one.cert.pem()).unwrap();
        std::fs::write(at("key"), one.signing_key.serialize_pem()).unwrap();
        std::fs::write(at("other key"), other.signing_key.serialize_pem()).unwrap();
        std::fs::write(at("text"), "no PEM").unwrap();
        let load = |certificate, key| TlsFiles { certificate: at(certificate), key: at(key) }.load();
        assert!(load("cert", "key").is_ok());
        for (certificate, key, expected) in [
            ("nothing", "key", "cannot read"),
            ("cert", "nothing", "cannot read"),
            ("text", "key", "holds no certificate"),
            ("key", "key", "holds no certificate"),
            ("cert", "cert", "holds no private key"),
            ("cert", "other key", "cannot be used together"),
        ] {
            let Err(error) = load(certificate, key) else { panic!("{certificate} and {key} are no pair") };
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
