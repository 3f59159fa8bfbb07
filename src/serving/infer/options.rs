//! Settings of the scoring part of a server.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::parse_duration;

/// Settings of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Rows that are scored together at most; 1 scores each request by itself.
    pub batch_rows: usize,
    /// How long a request waits at most for others to be scored with it. With 0 only those are scored together that came
    /// while the scorer was busy.
    pub batch_delay: Duration,
    /// Requests that may wait for the scorer; more are turned away.
    pub queue: usize,
    /// How long a request may take from its arrival.
    pub timeout: Duration,
    /// How long an answer is kept for requests with the same inputs; none are kept without.
    pub cache_ttl: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            batch_rows: 256,
            batch_delay: Duration::ZERO,
            queue: 1024,
            timeout: Duration::from_secs(10),
            cache_ttl: None,
        }
    }
}

/// Settings of the whole.
#[derive(Clone, Debug)]
pub struct Options {
    /// Registry whose models are served besides those of the jobs: directory or address.
    pub registry: Option<String>,
    /// Threads that score.
    pub threads: usize,
    /// Settings of models that have none of their own.
    pub settings: Settings,
    /// Settings by the name under which a model is served.
    pub models: BTreeMap<String, Settings>,
    /// Bytes of kept answers, of all models.
    pub cache_bytes: usize,
    /// Bytes of waiting inputs, of all models.
    pub queue_bytes: usize,
    /// Longest request, after decompression.
    pub request_bytes: usize,
    /// Versions that are kept loaded at most.
    pub loaded: usize,
    /// How often it is looked after which versions there are.
    pub refresh: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            registry: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            settings: Settings::default(),
            models: BTreeMap::new(),
            cache_bytes: 64 << 20,
            queue_bytes: 256 << 20,
            request_bytes: 64 << 20,
            loaded: 64,
            refresh: Duration::from_secs(1),
        }
    }
}

impl Options {
    /// Settings of a model.
    pub fn of(&self, model: &str) -> &Settings {
        self.models.get(model).unwrap_or(&self.settings)
    }
}

impl Settings {
    /// These settings with others in their places, written `batch=64,delay=2ms,queue=100,timeout=1s,cache=30s`; `cache=off` keeps no
    /// answers, `batch=1` scores each request by itself.
    ///
    /// # Errors
    /// A sentence that names what is not understood.
    pub fn with(mut self, text: &str) -> Result<Settings, String> {
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(format!("`{part}` is no setting: write key=value, with {KEYS}"));
            };
            let number = || match value.parse::<usize>() {
                Ok(n) if n > 0 => Ok(n),
                _ => Err(format!("`{part}`: a whole number of at least 1 is needed")),
            };
            let time = || {
                let micros = parse_duration(value).map_err(|why| format!("`{part}`: {why}"))?;
                let micros = u64::try_from(micros).map_err(|_| format!("`{part}`: a duration is not negative"))?;
                Ok::<_, String>(Duration::from_micros(micros))
            };
            match key.trim() {
                "batch" => self.batch_rows = number()?,
                "delay" if value == "0" => self.batch_delay = Duration::ZERO,
                "delay" => self.batch_delay = time()?,
                "queue" => self.queue = number()?,
                "timeout" => self.timeout = time()?,
                "cache" if value == "off" => self.cache_ttl = None,
                "cache" => self.cache_ttl = Some(time()?).filter(|ttl| !ttl.is_zero()),
                other => return Err(format!("`{other}` is no setting of a model; there are {KEYS}")),
            }
        }
        Ok(self)
    }
}

const KEYS: &str = "batch, delay, queue, timeout and cache";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let read = |text: &str| Settings::default().with(text);
        let settings = read("batch=64, delay=2ms,queue=10,timeout=1s,cache=30s").expect("they are settings");
        let expected = Settings {
            batch_rows: 64,
            batch_delay: Duration::from_millis(2),
            queue: 10,
            timeout: Duration::from_secs(1),
            cache_ttl: Some(Duration::from_secs(30)),
        };
        assert_eq!(settings, expected);
        assert_eq!(
            settings.with("cache=off,delay=0").map(|s| (s.cache_ttl, s.batch_delay)),
            Ok((None, Duration::ZERO))
        );
        for bad in ["batch", "batch=0", "batch=x", "delay=fast", "size=3", "timeout=-1s"] {
            let why = read(bad).expect_err(bad);
            assert!(why.contains(bad.split('=').next().unwrap_or(bad)), "{why}");
        }
    }
}
