//! The cores that this process may use.

/// Takes the calling thread from core to core, around all that it may use.
///
/// A system leaves a thread where it is woken: one that a busy thread wakes shares that thread's core again and again, and while the
/// two take turns, another core may stand still for moments too short for the system to bring a thread over.
pub struct Rounds {
    #[cfg(target_os = "linux")]
    all: libc::cpu_set_t,
    cores: Vec<usize>,
    next: usize,
}

impl Rounds {
    /// `None` where there is one core, or where the system does not tell.
    #[cfg(target_os = "linux")]
    pub fn new() -> Option<Self> {
        // SAFETY: a set of cores is plain numbers, of which none are meant by zeros; the system writes no more than its size.
        let (all, told) = unsafe {
            let mut all: libc::cpu_set_t = std::mem::zeroed();
            let told = libc::sched_getaffinity(0, size_of_val(&all), &raw mut all);
            (all, told)
        };
        // SAFETY: the numbers are below the set's size.
        let cores: Vec<usize> =
            (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &all) }).collect();
        (told == 0 && cores.len() > 1).then_some(Rounds { all, cores, next: 0 })
    }

    /// Other systems do not tell.
    #[cfg(not(target_os = "linux"))]
    pub fn new() -> Option<Self> {
        None
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// Goes to the next core. The thread may stay there and need not: the system moves it when it sees fit.
    pub fn step(&mut self) {
        self.next = (self.next + 1) % self.cores.len();
        #[cfg(target_os = "linux")]
        // SAFETY: sets of plain numbers, of which the system reads no more than their size. A core that has gone meanwhile is
        // refused, and the thread stays where it is.
        unsafe {
            let mut one: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(self.cores[self.next], &mut one);
            libc::sched_setaffinity(0, size_of_val(&one), &raw const one);
            libc::sched_setaffinity(0, size_of_val(&self.all), &raw const self.all);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_comes_to_every_core_and_is_bound_to_none() {
        let Some(mut rounds) = Rounds::new() else { return };
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 * rounds.cores() {
            rounds.step();
            // SAFETY: asks for a number.
            seen.insert(unsafe { libc::sched_getcpu() } as usize);
        }
        assert!(seen.iter().eq(&rounds.cores), "{seen:?}");
        assert_eq!(Rounds::new().map(|again| again.cores), Some(rounds.cores));
    }
}
