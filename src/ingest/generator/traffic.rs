//! The events themselves, in blocks of a fixed number of rows that are made independently of each other.
//!
//! Block b holds exactly the events whose progress (see [`super::calendar`]) lies in `[b·N, (b+1)·N)`, at N sorted uniform
//! places: a Poisson process conditioned on N events in every block. So the row at any offset is found without
//! generating those before it, and no row depends on how many are asked for at once.
//!
//! The frauds of the world:
//! 1. *large amount*: a stolen card number buys for four to ten times the customer's mean, more often at night;
//! 2. *compromised terminal*: for 28 days seven in ten transactions at the terminal are fraudulent, amounts unchanged;
//! 3. *compromised card*: for 14 days a third of the card's transactions are fraudulent, amounts fivefold;
//! 4. *card testing*, after the drift only: bursts of small amounts at terminals anywhere, an hour per victim.

use std::ops::Range;

use super::calendar::{Calendar, DAY, HOUR, NIGHT_UNTIL_HOUR, UNITS_PER_EVENT};
use super::random::{Purpose, Quantiles, Random, chance, high, low, scale};
use super::world::{CATEGORIES, World};
use crate::base::{EventTime, hash_u64};
use crate::plan::model::GeneratorConnector;

/// Rows of a block.
pub(super) const BLOCK_ROWS: u64 = 1024;
/// Rows that have an offset: those that a position of 40 bits can name.
pub(super) const ROWS_END: u64 = 1 << 40;
const BLOCK_UNITS_LOG2: u32 = BLOCK_ROWS.trailing_zeros() + UNITS_PER_EVENT.trailing_zeros();

/// Standard deviation of an amount's logarithm: amounts of one price level spread by half their mean.
const AMOUNT_SIGMA: f64 = 0.4724;

const LARGE_BY_DAY: u32 = chance(0.0008);
const LARGE_BY_NIGHT: u32 = chance(0.004);
const TERMINAL_SHARE: u32 = chance(0.7);
const CARD_SHARE: u32 = chance(1.0 / 3.0);
const TESTING_SHARE: u32 = chance(0.006);

/// Days that a terminal stays compromised.
pub(super) const TERMINAL_DAYS: i64 = 28;
/// Days that a card stays compromised.
pub(super) const CARD_DAYS: i64 = 14;
/// Terminals, and cards, that fall a day, per inhabitant.
const TERMINALS_A_DAY: f64 = 2e-4;
const CARDS_A_DAY: f64 = 6e-4;
/// Fraudulent events per victim of card testing.
const TESTS_PER_VICTIM: u64 = 6;

/// Amounts after the drift, relative to before.
const LEVEL_AFTER: f64 = 1.5;
/// Intensity of the night after the drift, relative to before.
const NIGHT_AFTER: u64 = 4;

/// The rows of one block, by column.
#[derive(Clone, Debug, Default)]
pub(super) struct Block {
    pub times: Vec<EventTime>,
    pub customers: Vec<u32>,
    pub terminals: Vec<u32>,
    pub cents: Vec<u32>,
    /// 0 genuine, else the number of the fraud above.
    pub scenarios: Vec<u8>,
    progress: Vec<u64>,
}

impl Block {
    /// Forgets all rows.
    pub fn clear(&mut self) {
        let Block { times, customers, terminals, cents, scenarios, progress } = self;
        times.clear();
        scenarios.clear();
        progress.clear();
        [customers, terminals, cents].into_iter().for_each(Vec::clear);
    }

    /// Adds rows of another block (without their progress).
    pub fn append(&mut self, from: &Block, range: Range<usize>) {
        self.times.extend_from_slice(&from.times[range.clone()]);
        self.customers.extend_from_slice(&from.customers[range.clone()]);
        self.terminals.extend_from_slice(&from.terminals[range.clone()]);
        self.cents.extend_from_slice(&from.cents[range.clone()]);
        self.scenarios.extend_from_slice(&from.scenarios[range]);
    }
}

/// Makes blocks.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    seed: u64,
    pub world: World,
    calendar: Calendar,
    amounts: Quantiles,
    terminals: Campaign,
    cards: Campaign,
    /// Victims of card testing per hour.
    victims: u32,
}

impl Traffic {
    /// The traffic of a connector's world; its stream, delay, duration and rate play no part.
    pub fn new(connector: &GeneratorConnector) -> Traffic {
        let GeneratorConnector { seed, customers, terminals, start, .. } = *connector;
        let world = World::new(seed, customers, terminals);
        let drift = connector.drift_after.map(|after| start.saturating_add(after));
        let per_day_units = world.per_day_milli * UNITS_PER_EVENT / 1000;
        // TESTING_SHARE of an hour's transactions, a few per victim.
        let tests_per_hour = world.per_day_milli / 1000 / 24 * 6 / 1000;
        Traffic {
            seed,
            calendar: Calendar::new(per_day_units, start, drift, NIGHT_AFTER),
            amounts: Quantiles::log_normal(AMOUNT_SIGMA),
            terminals: Campaign::new(seed, Purpose::TerminalCampaign, terminals, TERMINALS_A_DAY, TERMINAL_DAYS),
            cards: Campaign::new(seed, Purpose::CustomerCampaign, customers, CARDS_A_DAY, CARD_DAYS),
            victims: u32::try_from(tests_per_hour / TESTS_PER_VICTIM).unwrap_or(u32::MAX).max(1),
            world,
        }
    }

    /// Number of events before `end`; `None` beyond [`ROWS_END`], which nobody lives to see.
    pub fn rows_before(&mut self, end: EventTime, block: &mut Block) -> Option<u64> {
        let about = self.calendar.progress(end) / UNITS_PER_EVENT;
        // Rounding to milliseconds may carry a row over the edge of the block that holds `end`.
        let mut index = (about / BLOCK_ROWS).saturating_sub(1);
        while index * BLOCK_ROWS < ROWS_END {
            self.fill(index, block);
            let before = block.times.partition_point(|t| *t < end) as u64;
            if before < BLOCK_ROWS {
                return Some(index * BLOCK_ROWS + before);
            }
            index += 1;
        }
        None
    }

    /// Makes block `index`.
    pub fn fill(&mut self, index: u64, block: &mut Block) {
        let mut random = Random::new(self.seed, Purpose::Block, index);
        block.clear();
        let Block { times, customers, terminals, cents, scenarios, progress } = block;
        progress
            .extend((0..BLOCK_ROWS).map(|_| (index << BLOCK_UNITS_LOG2) + (random.word() >> (64 - BLOCK_UNITS_LOG2))));
        progress.sort_unstable();
        self.calendar.times(progress, times);
        for time in times.iter() {
            let row = self.row(*time, &mut random);
            customers.push(row.customer);
            terminals.push(row.terminal);
            cents.push(row.cents);
            scenarios.push(row.scenario);
        }
    }

    #[inline]
    fn row(&mut self, time: EventTime, random: &mut Random) -> Row {
        // The same three words for every row, whatever becomes of it: a drift changes only what it says.
        let (who, what, luck) = (random.word(), random.word(), random.word());
        let day = time.div_euclid(DAY);
        let drifted = self.calendar.drifted(time);
        if drifted && high(luck) < TESTING_SHARE {
            return self.card_testing(time, what, luck);
        }
        let customer = self.world.by_rate.pick(who);
        let profile = &self.world.customers[customer as usize];
        let known = self.world.known(profile);
        let terminal = known[scale(high(what), known.len() as u32) as usize];
        let price = CATEGORIES[self.world.terminals[terminal as usize].category as usize].2;
        let level = if drifted { LEVEL_AFTER } else { 1.0 };
        let mean = profile.mean_cents * level;
        let usual = mean * price * self.amounts.at(low(what));

        let night = time.rem_euclid(DAY) < (NIGHT_UNTIL_HOUR + 1) * HOUR;
        // Independent of `luck`'s upper half, which card testing looked at.
        let draw = low(luck);
        let second = high(hash_u64(luck));
        let (amount, scenario) = if draw < if night { LARGE_BY_NIGHT } else { LARGE_BY_DAY } {
            (mean * (4.0 + 6.0 * f64::from(second) / f64::from(u32::MAX)), 1)
        } else if self.terminals.holds(terminal, day) && second < TERMINAL_SHARE {
            (usual, 2)
        } else if self.cards.holds(customer, day) && second < CARD_SHARE {
            (usual * 5.0, 3)
        } else {
            (usual, 0)
        };
        Row { customer, terminal, cents: whole_cents(amount), scenario }
    }

    fn card_testing(&self, time: EventTime, what: u64, luck: u64) -> Row {
        let hour = time.div_euclid(HOUR) as u64;
        let victim = scale(low(luck), self.victims);
        let mut random = Random::new(self.seed, Purpose::CardTesting, hour.wrapping_mul(1 << 20) + u64::from(victim));
        let customer = random.below(self.world.customers.len() as u32);
        let terminal = scale(high(what), self.world.terminals.len() as u32);
        Row { customer, terminal, cents: 50 + scale(low(what), 450), scenario: 4 }
    }
}

struct Row {
    customer: u32,
    terminal: u32,
    cents: u32,
    scenario: u8,
}

/// At least one cent.
#[inline]
fn whole_cents(amount: f64) -> u32 {
    (amount + 0.5).max(1.0) as u32
}

/// Who is compromised on a day: each day a few fall, and stay so for a fixed number of days.
#[derive(Clone, Debug)]
struct Campaign {
    seed: u64,
    purpose: Purpose,
    inhabitants: u32,
    /// Falls a day: a whole number and the chance of one more.
    falls: (u32, u32),
    days: i64,
    /// The day that `fallen` is about.
    day: i64,
    /// One bit per inhabitant.
    fallen: Vec<u64>,
}

impl Campaign {
    fn new(seed: u64, purpose: Purpose, inhabitants: u32, share: f64, days: i64) -> Campaign {
        let expected = f64::from(inhabitants) * share;
        let falls = (expected as u32, chance(expected.fract()));
        let fallen = vec![0; inhabitants.div_ceil(64) as usize];
        Campaign { seed, purpose, inhabitants, falls, days, day: i64::MIN, fallen }
    }

    #[inline]
    fn holds(&mut self, who: u32, day: i64) -> bool {
        if day != self.day {
            self.turn_to(day);
        }
        self.fallen[who as usize / 64] >> (who % 64) & 1 == 1
    }

    #[cold]
    fn turn_to(&mut self, day: i64) {
        self.fallen.fill(0);
        for begun in day - self.days + 1..=day {
            let mut random = Random::new(self.seed, self.purpose, begun as u64);
            let falls = self.falls.0 + u32::from(high(random.word()) < self.falls.1);
            for _ in 0..falls {
                let who = random.below(self.inhabitants);
                self.fallen[who as usize / 64] |= 1 << (who % 64);
            }
        }
        self.day = day;
    }
}
