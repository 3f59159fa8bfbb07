//! Answers that are kept for requests with the same inputs, for a time and within so many bytes.
//!
//! The key is the SHA-256 of the model's hash and of all inputs, so that a new version, or a request that differs in one bit, has another. What
//! was used longest ago goes first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::request::size;
use crate::score::tensor::{Data, Tensor};

/// Key of an answer.
pub(super) type Key = [u8; 32];

struct Kept {
    outputs: Arc<Vec<Tensor>>,
    bytes: usize,
    made: Instant,
    /// The newest of its entries in the order of use.
    used: u64,
}

/// Kept answers.
pub(super) struct Cache {
    kept: HashMap<Key, Kept>,
    /// Uses, oldest first; those that are not the newest of their key count for nothing.
    order: VecDeque<(u64, Key)>,
    uses: u64,
    bytes: usize,
    bytes_max: usize,
}

/// The key of a request.
pub(super) fn key(model: &str, inputs: &[Tensor]) -> Key {
    let mut hash = Sha256::new();
    let mut put = |bytes: &[u8]| hash.update(bytes);
    put(model.as_bytes());
    for input in inputs {
        put(&(input.dims.len() as u64).to_le_bytes());
        input.dims.iter().for_each(|d| put(&(*d as u64).to_le_bytes()));
        match &input.data {
            Data::F32(v) => v.iter().for_each(|x| put(&x.to_bits().to_le_bytes())),
            Data::F64(v) => v.iter().for_each(|x| put(&x.to_bits().to_le_bytes())),
            Data::I64(v) => v.iter().for_each(|x| put(&x.to_le_bytes())),
            Data::Bool(v) => v.iter().for_each(|x| put(&[u8::from(*x)])),
            Data::Text(v) => v.iter().for_each(|x| {
                put(&(x.len() as u64).to_le_bytes());
                put(x.as_bytes());
            }),
        }
    }
    hash.finalize().into()
}

impl Cache {
    /// Without answers, for so many bytes of them.
    pub fn new(bytes_max: usize) -> Cache {
        Cache { kept: HashMap::new(), order: VecDeque::new(), uses: 0, bytes: 0, bytes_max }
    }

    /// An answer that is not older than `ttl`.
    pub fn get(&mut self, key: &Key, ttl: Duration, now: Instant) -> Option<Arc<Vec<Tensor>>> {
        let kept = self.kept.get_mut(key)?;
        if now.saturating_duration_since(kept.made) > ttl {
            self.remove(key);
            return None;
        }
        self.uses += 1;
        kept.used = self.uses;
        self.order.push_back((self.uses, *key));
        let outputs = kept.outputs.clone();
        self.tidy();
        Some(outputs)
    }

    /// Keeps an answer; others that were used longer ago make room. One that is longer than all room is not kept.
    pub fn put(&mut self, key: Key, outputs: Arc<Vec<Tensor>>, now: Instant) {
        let bytes = 160 + outputs.iter().map(size).sum::<usize>();
        if bytes > self.bytes_max {
            return;
        }
        self.remove(&key);
        self.uses += 1;
        self.bytes += bytes;
        self.kept.insert(key, Kept { outputs, bytes, made: now, used: self.uses });
        self.order.push_back((self.uses, key));
        while self.bytes > self.bytes_max {
            let Some((used, key)) = self.order.pop_front() else { break };
            if self.kept.get(&key).is_some_and(|kept| kept.used == used) {
                self.remove(&key);
            }
        }
        self.tidy();
    }

    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.bytes -= kept.bytes;
        }
    }

    /// Forgets uses that count for nothing when they are most of what is remembered.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.kept.len() + 64 {
            let kept = &self.kept;
            self.order.retain(|(used, key)| kept.get(key).is_some_and(|kept| kept.used == *used));
        }
    }

    /// Bytes of kept answers.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(value: f32) -> Arc<Vec<Tensor>> {
        Arc::new(vec![Tensor::new(vec![1], Data::F32(vec![value]))])
    }

    fn input(values: &[f32]) -> Vec<Tensor> {
        vec![Tensor::new(vec![1, values.len()], Data::F32(values.to_vec()))]
    }

    #[test]
    fn keys_tell_inputs_and_models_apart() {
        let one = key("a", &input(&[1.0, 2.0]));
        assert_eq!(one, key("a", &input(&[1.0, 2.0])));
        let next = f32::from_bits(2.0f32.to_bits() + 1);
        let text = |all: &[&str]| vec![Tensor::new(vec![2], Data::Text(all.iter().map(|t| (*t).to_owned()).collect()))];
        for other in [key("b", &input(&[1.0, 2.0])), key("a", &input(&[1.0, next])), key("a", &input(&[1.0]))] {
            assert_ne!(one, other);
        }
        assert_ne!(key("a", &text(&["ab", "c"])), key("a", &text(&["a", "bc"])));
        assert_ne!(key("a", &input(&[0.0])), key("a", &input(&[-0.0])), "a model may tell them apart");
    }

    #[test]
    fn answers_grow_old_and_make_room() {
        let (now, ttl) = (Instant::now(), Duration::from_secs(1));
        let one = 160 + 64 + 4;
        let mut cache = Cache::new(2 * one);
        let keys: Vec<Key> = (0..3).map(|i| key("m", &input(&[i as f32]))).collect();
        cache.put(keys[0], answer(0.0), now);
        cache.put(keys[1], answer(1.0), now);
        assert_eq!(cache.get(&keys[0], ttl, now), Some(answer(0.0)));
        cache.put(keys[2], answer(2.0), now);
        assert_eq!(cache.get(&keys[1], ttl, now), None, "it was used longest ago");
        assert_eq!(cache.get(&keys[0], ttl, now + ttl), Some(answer(0.0)));
        assert_eq!(cache.get(&keys[0], ttl, now + 2 * ttl), None, "it is too old");
        assert_eq!(cache.bytes(), one);
        for i in 0..10_000 {
            cache.get(&keys[2], 100 * ttl, now);
            assert!(cache.order.len() <= 2 * cache.kept.len() + 65, "{i}");
        }
        let long: Arc<Vec<Tensor>> = Arc::new(vec![Tensor::new(vec![1000], Data::F32(vec![0.0; 1000]))]);
        cache.put(keys[0], long, now);
        assert_eq!(cache.get(&keys[0], ttl, now), None, "there is no room for it");
    }
}
