//! Drift: how a window's columns differ from a reference, and whether that is more than chance.
//!
//! Layers, bottom-up: [`grid`], cells of a numeric column; [`histogram`], the one subtractable state from which every
//! statistic follows; [`count`], the fast way into it; [`reference`](mod@reference), what windows are held against; [`measure`](mod@measure), the
//! statistics; [`profile`], a training set that windows are held against; [`distribution`], their tails; [`alarm`], their thresholds; [`windows`], the state of a monitor.

pub mod alarm;
pub mod count;
pub mod distribution;
pub mod grid;
pub mod histogram;
pub mod labels;
pub mod measure;
pub mod profile;
mod random;
pub mod reference;
#[cfg(test)]
mod tests;
pub mod windows;
