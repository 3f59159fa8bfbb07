//! The cores that a thread may use.

/// The cores that the calling thread may use, more than one, to go from one to another.
///
/// A system leaves a thread where it is woken: one that a busy thread wakes shares that thread's core again and again, and while the
/// two take turns, another core may stand still for moments too short for the system to bring a thread over.
pub struct Cores {
    #[cfg(target_os = "linux")]
    all: libc::cpu_set_t,
    list: Vec<usize>,
}

impl Cores {
    /// `None` where there is one core, or where the system does not tell.
    #[cfg(target_os = "linux")]
    fn allowed() -> Option<Self> {
        // SAFETY: a set of cores is plain numbers, of which none are meant by zeros; the system writes no more than its size.
        let (all, told) = unsafe {
            let mut all: libc::cpu_set_t = std::mem::zeroed();
            let told = libc::sched_getaffinity(0, size_of_val(&all), &raw mut all);
            (all, told)
        };
        // SAFETY: the numbers are below the set's size.
        let list: Vec<usize> =
            (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &all) }).collect();
        (told == 0 && list.len() > 1).then_some(Cores { all, list })
    }

    /// Other systems do not tell.
    #[cfg(not(target_os = "linux"))]
    fn allowed() -> Option<Self> {
        None
    }

    /// Those that so many workers share, when there is a worker for each at least; with fewer, the system has room to place threads.
    pub fn shared_by(workers: usize) -> Option<Self> {
        Self::allowed().filter(|cores| workers >= cores.list.len())
    }

    /// Goes to core `number` of them, counted round and round. The thread may stay there and need not: the system moves it when it
    /// sees fit.
    pub fn go_to(&self, number: usize) {
        let core = self.list[number % self.list.len()];
        #[cfg(target_os = "linux")]
        // SAFETY: asks for a number; then sets of plain numbers, of which the system reads no more than their size. A core that has
        // gone meanwhile is refused, and the thread stays where it is.
        unsafe {
            if libc::sched_getcpu() == core as i32 {
                return;
            }
            let mut one: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(core, &mut one);
            libc::sched_setaffinity(0, size_of_val(&one), &raw const one);
            libc::sched_setaffinity(0, size_of_val(&self.all), &raw const self.all);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = core;
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_comes_to_every_core_and_is_bound_to_none() {
        let Some(cores) = Cores::allowed() else { return };
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..20 * cores.list.len() {
            cores.go_to(number);
            // SAFETY: asks for a number.
            seen.insert(unsafe { libc::sched_getcpu() } as usize);
        }
        assert!(seen.iter().eq(&cores.list), "{seen:?}");
        assert!(Cores::shared_by(cores.list.len() - 1).is_none());
        assert_eq!(Cores::shared_by(cores.list.len()).map(|again| again.list), Some(cores.list));
    }
}
