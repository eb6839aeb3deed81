//! From settings to a store that works, or one line that says why not and what to do.
//! Owns: the client's credentials, region, retries and timeouts (a write's grow with its size, see `write`).
//! Invariants
//! - An S3 that is not reachable is a warning: the server serves what it has (F8).
//! - Every wait for S3 has a bound, so that a hung S3 becomes `Unavailable`.

use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::client::error::ImdsError;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Credentials, ProvideCredentials, RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider,
    StalledStreamProtectionConfig,
};

use super::counters::Count;
use super::error::Failure;
use super::limits::limited_writing;
use super::{Counters, S3Store, WriteStore};
use crate::config::S3Config;
use crate::revalidate::Stores;

/// Where to ask when nobody says: S3 there knows every bucket and tells where it is.
const DEFAULT_REGION: &str = "us-east-1";

/// How long to wait and how often to try.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Longest wait for a TCP and TLS connection.
    pub connect: Duration,
    /// Longest wait of one try for the head of the answer.
    pub attempt: Duration,
    /// Longest wait of all tries together.
    pub operation: Duration,
    /// Longest silence in the middle of a body.
    pub stall: Duration,
    /// Tries of one request.
    pub attempts: u32,
    /// Pause before the second try, which doubles with each try, times a random number below one.
    pub backoff: Duration,
    /// Longest wait at start for the first answer.
    pub probe: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            // Three times the retransmission of a lost SYN.
            connect: Duration::from_secs(5),
            // A hundred times the usual time to the first byte; LISTs of odd prefixes do take seconds.
            attempt: Duration::from_secs(10),
            operation: Duration::from_secs(25),
            stall: Duration::from_secs(10),
            attempts: 5,
            // Five tries then end within 1.5 s when the connection is refused.
            backoff: Duration::from_millis(100),
            // Less than anybody waits for a server to start.
            probe: Duration::from_secs(5),
        }
    }
}

/// What a caller may know better than the environment.
#[derive(Clone, Debug, Default)]
pub struct Connecting {
    /// Credentials to use in place of the chain's; for the server inside this process.
    pub credentials: Option<Credentials>,
    /// Bounds on waiting.
    pub timing: Timing,
}

/// S3, connected.
pub struct Connected {
    /// The two views of the store, within their limits.
    pub stores: Stores,
    /// For writing: in the background, within the same limits.
    pub writes: Arc<dyn WriteStore>,
    /// What is wrong now but may get better; one line.
    pub warning: Option<String>,
    /// The same credentials and settings, for other services.
    pub shared: SdkConfig,
    /// The same S3, for what the stores have no words for.
    pub client: Client,
}

/// Why there is no serving this bucket; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The chain of credentials has none.
    #[error(
        "no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run `aws configure` or \
         `aws sso login`, choose a profile with --profile, or give --no-sign-request for a public bucket"
    )]
    NoCredentials,
    /// There are some, but they cannot be used.
    #[error("the AWS credentials cannot be used ({message}): check --profile and ~/.aws/config")]
    BadCredentials {
        /// What is wrong with them.
        message: String,
    },
    /// S3 knows no such bucket.
    #[error("bucket {bucket} does not exist: check its name, and --endpoint-url if it is not on AWS")]
    NoSuchBucket {
        /// Its name.
        bucket: String,
    },
    /// `--region` names another region.
    #[error("bucket {bucket} is in region {region}: use --region {region}, or leave --region out")]
    WrongRegion {
        /// Its name.
        bucket: String,
        /// Where it is.
        region: String,
    },
    /// S3 refused the listing.
    #[error(
        "access to bucket {bucket} is denied ({message}): these credentials need s3:ListBucket on the bucket and \
         s3:GetObject on its objects; check --profile, and --request-payer if the requester pays"
    )]
    Denied {
        /// Its name.
        bucket: String,
        /// What S3 said.
        message: String,
    },
    /// Something else.
    #[error("bucket {bucket} cannot be listed ({message}): check --endpoint-url and --region")]
    Other {
        /// Its name.
        bucket: String,
        /// What S3 said.
        message: String,
    },
}

/// Connects to the bucket of `config` and lists one key of it.
/// # Errors
/// Whatever will not get better by itself; an S3 that is not reachable is a warning.
pub async fn connect(config: &S3Config, counters: Arc<Counters>) -> Result<Connected, StartError> {
    connect_with(config, counters, Connecting::default()).await
}

/// As `connect`, with credentials and bounds of the caller's.
/// # Errors
/// As `connect`.
pub async fn connect_with(
    config: &S3Config,
    counters: Arc<Counters>,
    Connecting { credentials, timing }: Connecting,
) -> Result<Connected, StartError> {
    let shared = load(config, credentials).await;
    let mut warning = match config.anonymous {
        true => None,
        false => credentials_warning(shared.credentials_provider()).await?,
    };
    let mut region = None;
    let connection = |region: &Option<String>| client(config, &shared, region.clone(), &counters, timing);
    let mut sdk = connection(&region);
    let mut store = S3Store::new(sdk.clone(), config, timing);
    if warning.is_none() {
        let mut probed = probe(&store, timing).await;
        if let Probed::Elsewhere(elsewhere) = &probed
            && config.region.is_none()
        {
            tracing::info!(bucket = config.bucket, region = elsewhere, "following the bucket to its region");
            region = Some(elsewhere.clone());
            sdk = connection(&region);
            store = S3Store::new(sdk.clone(), config, timing);
            probed = probe(&store, timing).await;
        }
        warning = diagnose(config, probed)?;
    }
    // Connections live on the runtime that opened them: what clients wait for has its own, beside the background's.
    let foreground = S3Store::new(connection(&region), config, timing);
    let stores = [Arc::new(foreground), Arc::new(store)];
    let (stores, writes) = limited_writing(stores, config.concurrency, config.rate, counters.clone());
    Ok(Connected { stores, writes, warning, shared, client: sdk })
}

/// What the first request came to.
enum Probed {
    Fine,
    Silent(String),
    Elsewhere(String),
    Failed(Failure),
}

async fn probe(store: &S3Store, timing: Timing) -> Probed {
    match tokio::time::timeout(timing.probe, store.probe()).await {
        Err(_) => Probed::Silent(format!("no answer in {} s", timing.probe.as_secs_f32())),
        Ok(Ok(())) => Probed::Fine,
        Ok(Err(failure)) => match &failure.region {
            Some(region) if failure.is_elsewhere() => Probed::Elsewhere(region.clone()),
            _ => Probed::Failed(failure),
        },
    }
}

/// The warning, or the error, that the first request's outcome deserves.
fn diagnose(config: &S3Config, probed: Probed) -> Result<Option<String>, StartError> {
    let bucket = config.bucket.clone();
    let unreachable = |message: &str| {
        let place = config.endpoint_url.as_deref().unwrap_or("S3");
        Ok(Some(format!("{place} is not reachable ({message}): serving what is in the cache, and asking again")))
    };
    match probed {
        Probed::Fine => Ok(None),
        Probed::Silent(message) => unreachable(&message),
        Probed::Elsewhere(region) => Err(StartError::WrongRegion { bucket, region }),
        Probed::Failed(Failure { status, code, message, .. }) => match (status, code.as_str()) {
            (0 | 408 | 429 | 500..=599, _) => unreachable(&message),
            (404, _) => Err(StartError::NoSuchBucket { bucket }),
            (401 | 403, _) | (_, "ExpiredToken" | "InvalidToken") => Err(StartError::Denied { bucket, message }),
            _ => Err(StartError::Other { bucket, message }),
        },
    }
}

/// Loads the credentials once, so that their absence is told apart from an S3 that is gone. A provider
/// that does not answer (SSO, IMDS, while offline) may do so later.
async fn credentials_warning(provider: Option<SharedCredentialsProvider>) -> Result<Option<String>, StartError> {
    match provider.ok_or(StartError::NoCredentials)?.provide_credentials().await {
        Ok(_) => Ok(None),
        Err(CredentialsError::CredentialsNotLoaded(_)) => Err(StartError::NoCredentials),
        Err(error @ CredentialsError::InvalidConfiguration(_)) => {
            Err(StartError::BadCredentials { message: last_cause(&error) })
        }
        Err(error) if is_without_imds(&error) => Err(StartError::NoCredentials),
        Err(error) => Ok(Some(format!(
            "AWS credentials cannot be had now ({}): serving what is in the cache; if this stays, run `aws sso login` or check --profile",
            last_cause(&error)
        ))),
    }
}

/// Whether the chain came to its end, the instance's own service, and that one gives nothing to this process.
fn is_without_imds(error: &CredentialsError) -> bool {
    causes(error).any(|cause| matches!(cause.downcast_ref(), Some(ImdsError::FailedToLoadToken(_))))
}

fn last_cause(error: &CredentialsError) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn causes<'a>(error: &'a CredentialsError) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &'a (dyn std::error::Error + 'static)), |cause| cause.source())
}

/// What the environment, the profile and the flags say, in aws-config's order.
async fn load(config: &S3Config, credentials: Option<Credentials>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(credentials) = credentials {
        loader = loader.credentials_provider(credentials);
    }
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(url) = &config.endpoint_url {
        loader = loader.endpoint_url(url);
        if config.region.is_none() {
            loader = loader.region(region_off_aws(config));
        }
    }
    if config.anonymous {
        loader = loader.no_credentials();
    }
    loader.load().await
}

/// The region for a server that is not AWS's: as the environment or the profile says, without asking the
/// instance's own service, which there is none of.
fn region_off_aws(config: &S3Config) -> RegionProviderChain {
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &config.profile {
        profile = profile.profile_name(name);
    }
    RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(profile.build())
        .or_else(Region::from_static(DEFAULT_REGION))
}

fn client(
    config: &S3Config,
    shared: &SdkConfig,
    region: Option<String>,
    counters: &Arc<Counters>,
    timing: Timing,
) -> Client {
    let region = region.map(Region::new).or_else(|| shared.region().cloned());
    let has_endpoint = shared.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    let mut builder = aws_sdk_s3::config::Builder::from(shared)
        .region(region.unwrap_or_else(|| Region::from_static(DEFAULT_REGION)))
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(timing.attempts)
                .with_initial_backoff(timing.backoff)
                .with_max_backoff(timing.operation),
        )
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(timing.connect)
                .operation_attempt_timeout(timing.attempt)
                .operation_timeout(timing.operation)
                .build(),
        )
        // `answer::checked` bounds the silence in a body, and counts no time in which nobody reads; `Outgoing` bounds it
        // in an upload, where the SDK sees a body in memory as gone at once.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // Other servers than AWS's refuse the trailing checksums that are the SDK's default.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .interceptor(Count(counters.clone()));
    // Only AWS has a host name for every bucket.
    if has_endpoint {
        builder = builder.force_path_style(true);
    }
    if config.anonymous {
        builder = builder.allow_no_auth();
    }
    Client::from_conf(builder.build())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use aws_sdk_s3::config::ProvideCredentials;
    use std::num::NonZeroU32;

    /// A provider that fails as `error` says.
    #[derive(Debug)]
    struct Failing(fn() -> CredentialsError);

    impl ProvideCredentials for Failing {
        fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            aws_credential_types::provider::future::ProvideCredentials::ready(Err((self.0)()))
        }
    }

    async fn load_from(error: fn() -> CredentialsError) -> Result<Option<String>, StartError> {
        credentials_warning(Some(SharedCredentialsProvider::new(Failing(error)))).await
    }

    #[tokio::test]
    async fn missing_credentials_are_told_from_a_provider_that_is_away() {
        assert!(matches!(credentials_warning(None).await, Err(StartError::NoCredentials)));
        let none = load_from(|| CredentialsError::not_loaded("none")).await;
        assert!(matches!(none, Err(StartError::NoCredentials)));
        let invalid = load_from(|| CredentialsError::invalid_configuration("loop")).await;
        assert_eq!(
            invalid.unwrap_err().to_string(),
            "the AWS credentials cannot be used (loop): check --profile and ~/.aws/config"
        );
        let away = load_from(|| CredentialsError::provider_error("sso is offline")).await;
        assert!(away.unwrap().unwrap().contains("sso is offline"));
    }

    fn config() -> S3Config {
        S3Config {
            bucket: "b".into(),
            prefix: String::new(),
            endpoint_url: None,
            region: None,
            profile: None,
            anonymous: false,
            requester_pays: false,
            concurrency: NonZeroU32::MIN,
            rate: None,
            new_objects: crate::config::NewObjects::default(),
        }
    }

    fn diagnosis(status: u16, code: &str) -> Result<Option<String>, StartError> {
        let failure = Failure { status, code: code.into(), message: "said so".into(), region: None };
        diagnose(&config(), Probed::Failed(failure))
    }

    #[test]
    fn only_what_may_get_better_is_a_warning() {
        for status in [0, 429, 503] {
            assert!(diagnosis(status, "").unwrap().unwrap().contains("not reachable (said so)"), "{status}");
        }
        assert!(matches!(diagnosis(404, "NoSuchBucket"), Err(StartError::NoSuchBucket { .. })));
        assert!(matches!(diagnosis(403, "AccessDenied"), Err(StartError::Denied { .. })));
        assert!(matches!(diagnosis(400, "ExpiredToken"), Err(StartError::Denied { .. })));
        assert!(matches!(diagnosis(400, "InvalidArgument"), Err(StartError::Other { .. })));
        let elsewhere = diagnose(&config(), Probed::Elsewhere("eu-west-1".into())).unwrap_err();
        assert!(elsewhere.to_string().contains("use --region eu-west-1"));
    }
}
