//! Who lives in the generated world: customers with a home, a spending profile and a mean rate, and the terminals within
//! their reach.

use super::random::{Alias, Purpose, Random};

/// Side of the square map.
const SIDE: f64 = 100.0;
/// Terminals that a customer reaches on average; it fixes the radius for a given number of terminals.
const REACHABLE_MEAN: f64 = 40.0;
/// Terminals that a customer knows at most: a fixed bound on the memory of large worlds.
const KNOWN_MAX: usize = 32;

/// Countries by longitude, and where each begins on the map.
pub(super) const COUNTRIES: [(f64, &str); 5] = [(0.0, "FR"), (42.0, "DE"), (66.0, "ES"), (82.0, "IT"), (93.0, "BE")];

/// Merchant category codes (ISO 18245): share of terminals in percent, and price level in percent of the customer's mean.
pub(super) const CATEGORIES: [(&str, u32, f64); 10] = [
    ("5411", 30, 0.8), // grocery
    ("5812", 18, 0.9), // restaurant
    ("5541", 12, 1.0), // fuel
    ("5912", 8, 0.7),  // pharmacy
    ("5651", 10, 1.3), // clothing
    ("4111", 8, 0.5),  // local transport
    ("5942", 4, 0.6),  // books
    ("5732", 4, 2.2),  // electronics
    ("7011", 3, 2.4),  // hotel
    ("5999", 3, 1.1),  // other retail
];

/// A customer, as far as traffic needs to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Customer {
    /// Mean amount in cents.
    pub mean_cents: f64,
    /// Where the known terminals begin in [`World::known`].
    known: u32,
    /// How many there are; at least one.
    known_len: u32,
}

/// A terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    /// Index into [`CATEGORIES`].
    pub category: u8,
    /// Index into [`COUNTRIES`].
    pub country: u8,
}

/// The world: a function of seed, customers and terminals alone.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub customers: Vec<Customer>,
    pub terminals: Vec<Terminal>,
    known: Vec<u32>,
    /// Draws customers by their mean rate.
    pub by_rate: Alias,
    /// Expected transactions a day, in thousandths.
    pub per_day_milli: u64,
}

impl World {
    /// Builds the world. Takes time and memory in proportion to customers and terminals (128 bytes a customer at most).
    pub fn new(seed: u64, customers: u32, terminals: u32) -> World {
        let categories = Alias::new(&CATEGORIES.map(|(_, share, _)| share));
        let mut places = Vec::with_capacity(terminals as usize);
        let mut list = Vec::with_capacity(terminals as usize);
        for id in 0..terminals {
            let mut random = Random::new(seed, Purpose::Terminal, u64::from(id));
            let place = (random.between(0.0, SIDE), random.between(0.0, SIDE));
            let country = COUNTRIES.iter().rposition(|(from, _)| place.0 >= *from).unwrap_or(0) as u8;
            list.push(Terminal { category: categories.pick(random.word()) as u8, country });
            places.push(place);
        }
        let grid = Grid::new(&places);
        let mut known = Vec::new();
        let mut rates = Vec::with_capacity(customers as usize);
        let people = (0..customers)
            .map(|id| {
                let mut random = Random::new(seed, Purpose::Customer, u64::from(id));
                let home = (random.between(0.0, SIDE), random.between(0.0, SIDE));
                let mean_cents = random.between(500.0, 10_000.0).floor();
                // Transactions a day in thousandths: 0.1 to 4.
                rates.push(100 + random.below(3_901));
                let begin = known.len();
                grid.reach(home, &mut Random::new(seed, Purpose::Reach, u64::from(id)), &mut known);
                Customer { mean_cents, known: begin as u32, known_len: (known.len() - begin) as u32 }
            })
            .collect();
        let per_day_milli = rates.iter().map(|r| u64::from(*r)).sum();
        World { customers: people, terminals: list, known, by_rate: Alias::new(&rates), per_day_milli }
    }

    /// The terminals that a customer goes to.
    #[inline]
    pub fn known(&self, customer: &Customer) -> &[u32] {
        &self.known[customer.known as usize..][..customer.known_len as usize]
    }
}

/// Terminals by square cells one radius wide, so that a disc touches nine cells.
struct Grid<'a> {
    places: &'a [(f64, f64)],
    radius: f64,
    across: usize,
    /// Where each cell begins in `members`, row by row.
    starts: Vec<u32>,
    members: Vec<u32>,
}

impl<'a> Grid<'a> {
    fn new(places: &'a [(f64, f64)]) -> Grid<'a> {
        // 355/113 for π: the radius is a parameter of the world, not a geometric result.
        let radius = (REACHABLE_MEAN * SIDE * SIDE * 113.0 / 355.0 / places.len() as f64).sqrt().min(2.0 * SIDE);
        let across = ((SIDE / radius) as usize).max(1);
        let mut grid =
            Grid { places, radius, across, starts: vec![0; across * across + 1], members: vec![0; places.len()] };
        for place in places {
            let cell = grid.cell(*place);
            grid.starts[cell + 1] += 1;
        }
        for cell in 0..across * across {
            grid.starts[cell + 1] += grid.starts[cell];
        }
        let mut next = grid.starts.clone();
        for (id, place) in places.iter().enumerate() {
            let slot = &mut next[grid.cell(*place)];
            grid.members[*slot as usize] = id as u32;
            *slot += 1;
        }
        grid
    }

    fn line(&self, coordinate: f64) -> usize {
        ((coordinate / SIDE * self.across as f64) as usize).min(self.across - 1)
    }

    fn cell(&self, place: (f64, f64)) -> usize {
        self.line(place.1) * self.across + self.line(place.0)
    }

    /// Appends the terminals within the radius of `home`, a fair sample of [`KNOWN_MAX`] where there are more, the nearest
    /// one where there is none.
    fn reach(&self, home: (f64, f64), random: &mut Random, known: &mut Vec<u32>) {
        let begin = known.len();
        let mut seen = 0;
        let around = |line: usize| line.saturating_sub(1)..=(line + 1).min(self.across - 1);
        for row in around(self.line(home.1)) {
            for column in around(self.line(home.0)) {
                let cell = row * self.across + column;
                for id in &self.members[self.starts[cell] as usize..self.starts[cell + 1] as usize] {
                    if distance2(home, self.places[*id as usize]) > self.radius * self.radius {
                        continue;
                    }
                    seen += 1;
                    if known.len() - begin < KNOWN_MAX {
                        known.push(*id);
                    } else {
                        // Reservoir sampling (Vitter's algorithm R).
                        let slot = random.below(seen) as usize;
                        if slot < KNOWN_MAX {
                            known[begin + slot] = *id;
                        }
                    }
                }
            }
        }
        if seen == 0 {
            let nearest = (0..self.places.len())
                .min_by(|a, b| distance2(home, self.places[*a]).total_cmp(&distance2(home, self.places[*b])));
            known.extend(nearest.map(|id| id as u32));
        }
    }
}

fn distance2(a: (f64, f64), b: (f64, f64)) -> f64 {
    (a.0 - b.0) * (a.0 - b.0) + (a.1 - b.1) * (a.1 - b.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_equals_a_scan_of_all_terminals() {
        let mut random = Random::new(3, Purpose::Terminal, 0);
        for terminals in [1, 2, 30, 500, 3000] {
            let mut place = || (random.between(0.0, SIDE), random.between(0.0, SIDE));
            let places: Vec<_> = (0..terminals).map(|_| place()).collect();
            let grid = Grid::new(&places);
            for _ in 0..50 {
                let home = place();
                let mut known = Vec::new();
                grid.reach(home, &mut Random::new(1, Purpose::Reach, 0), &mut known);
                let near = |id: &u32| distance2(home, places[*id as usize]) <= grid.radius * grid.radius;
                let all: Vec<u32> = (0..terminals as u32).filter(near).collect();
                if all.is_empty() {
                    assert_eq!(known.len(), 1);
                    continue;
                }
                assert!(known.iter().all(near));
                assert_eq!(known.len(), all.len().min(KNOWN_MAX));
                known.sort_unstable();
                known.dedup();
                assert_eq!(known.len(), all.len().min(KNOWN_MAX), "a terminal twice");
            }
        }
    }
}
