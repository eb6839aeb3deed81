//! The same steps without fasts3: the requests a program would send to S3 itself, over one warm connection pool.

use anyhow::Context;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};

use crate::s3server::{ACCESS_KEY, REGION, SECRET_KEY};

pub(super) struct Alone {
    client: Client,
    bucket: String,
}

impl Alone {
    pub(super) async fn connect(endpoint: &str, bucket: &str) -> anyhow::Result<Alone> {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(endpoint)
            .region(Region::new(REGION))
            .force_path_style(true)
            .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "demo"))
            .retry_config(RetryConfig::disabled())
            .build();
        let alone = Alone { client: Client::from_conf(config), bucket: bucket.to_owned() };
        // The SDK sets itself up with the first request; that is not S3's time.
        alone.client.head_bucket().bucket(bucket).send().await.context("the S3 server does not answer")?;
        Ok(alone)
    }

    /// GET of the object, or of its first bytes.
    pub(super) async fn get(&self, key: &str, first_bytes: Option<u64>) -> anyhow::Result<()> {
        let range = first_bytes.map(|n| format!("bytes=0-{}", n - 1));
        let mut body = self.client.get_object().bucket(&self.bucket).key(key).set_range(range).send().await?.body;
        while body.try_next().await?.is_some() {}
        Ok(())
    }

    /// GET of each, one after another.
    pub(super) async fn get_all(&self, keys: &[String]) -> anyhow::Result<()> {
        for key in keys {
            self.get(key, None).await?;
        }
        Ok(())
    }

    /// Every page of a listing.
    pub(super) async fn list(&self, prefix: &str) -> anyhow::Result<()> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).delimiter("/");
        let mut pages = request.into_paginator().send();
        while pages.try_next().await?.is_some() {}
        Ok(())
    }
}
