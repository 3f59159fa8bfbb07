//! Reads and decodes on a thread of its own, a few ticks ahead of the graph, so that one tick's input is made ready while
//! the one before it is computed. What a tick holds is decided on that thread alone and does not depend on who waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::Thread;
use std::time::Instant;

use timely::scheduling::SyncActivator;

use super::shared::Shared;
use super::status::StopMode;
use crate::base::{Cores, SlotRange};
use crate::ingest::aligned::{Aligned, Cut, LaneView, Next};
use crate::ingest::{Counts, IngestError};

/// Ticks read and not yet taken.
const AHEAD: usize = 2;

/// A tick's input, and the rows read, filtered, late and rejected up to it, per source.
pub struct Read {
    pub cut: Box<Cut>,
    pub counts: Vec<Counts>,
    /// Where the tick ends an epoch: the slots that its snapshot writes anew.
    pub anew: SlotRange,
    /// The partitions as they stood with it.
    pub lanes: Vec<LaneView>,
}

/// What the thread has ready.
pub enum Ready {
    Read(Read),
    /// Nothing now; the operator is activated when there is.
    Nothing,
    /// The last tick has been taken.
    End,
}

/// The taking end.
pub struct ReadAhead {
    reads: Receiver<Result<Read, IngestError>>,
    idle: Arc<AtomicBool>,
    thread: Thread,
}

impl ReadAhead {
    /// Starts reading. `activator` is told of every tick that is ready.
    /// Where the `workers` take all cores, the thread shares each of them in turn.
    pub fn start(
        reader: Aligned,
        shared: Arc<Shared>,
        activator: SyncActivator,
        workers: usize,
    ) -> std::io::Result<ReadAhead> {
        let (sender, reads) = sync_channel(AHEAD);
        let idle = Arc::new(AtomicBool::new(false));
        let is_idle = Arc::clone(&idle);
        let handle = std::thread::Builder::new().name("tidemill-reader".to_owned()).spawn(move || {
            read(reader, &shared, &sender, &activator, &is_idle, workers);
            shared.savepoints.input_ended();
            // Where no last tick says that it is over, the worker has to look.
            drop(sender);
            let _ = activator.activate();
        })?;
        Ok(ReadAhead { reads, idle, thread: handle.thread().clone() })
    }

    /// Tells the thread that nothing is under way behind the sources, so that live rows need not wait until their tick is due.
    pub fn idle(&self) {
        if !self.idle.swap(true, Ordering::Relaxed) {
            self.thread.unpark();
        }
    }

    /// The next tick, if it is there.
    ///
    /// # Errors
    /// When a source cannot be read at all.
    pub fn next(&self) -> Result<Ready, IngestError> {
        match self.reads.try_recv() {
            Ok(read) => read.map(Ready::Read),
            Err(TryRecvError::Empty) => Ok(Ready::Nothing),
            Err(TryRecvError::Disconnected) => Ok(Ready::End),
        }
    }
}

fn read(
    mut reader: Aligned,
    shared: &Shared,
    sender: &SyncSender<Result<Read, IngestError>>,
    activator: &SyncActivator,
    idle: &AtomicBool,
    workers: usize,
) {
    let thread = std::thread::current();
    // News of rows are no news while a tick waits to be cut.
    let asleep = Arc::new(AtomicBool::new(false));
    let sleeps = Arc::clone(&asleep);
    reader.wake_with(Arc::new(move || {
        if !sleeps.load(Ordering::Relaxed) {
            thread.unpark();
        }
    }));
    let cores = Cores::shared_by(workers);
    loop {
        reader.set_idle(idle.load(Ordering::Relaxed));
        let progress = &shared.checkpoints.progress;
        let anew = progress.anew();
        if shared.checkpoints.enabled() {
            // A slow store makes epochs longer, and does not make them wait.
            reader.hold_epochs(progress.outstanding() > 0);
            if anew.is_first() {
                reader.next_state_whole();
            }
        }
        let asked = shared.savepoints.asked();
        if asked.is_some() {
            reader.close_epoch();
        }
        let now = Instant::now();
        let next = match shared.stop_mode() {
            None => reader.next(now),
            Some(StopMode::Drain) => reader.drain(now),
            Some(StopMode::Checkpoint | StopMode::Now) => Ok(reader.stop(now)),
        };
        let read = match next {
            Ok(Next::Cut(cut)) => {
                if cut.info.epoch_end {
                    progress.anew_begun(anew);
                    shared.savepoints.assign(asked, cut.info.epoch, cut.info.last);
                }
                shared.meters.ahead(reader.counts(), reader.worked());
                Ok(Read { cut, counts: reader.counts().to_vec(), anew, lanes: reader.lanes().collect() })
            }
            Ok(Next::Wait(wait)) => {
                if shared.failed() {
                    return;
                }
                // A topic that has something wakes it earlier, and so does the worker when nothing is under way.
                asleep.store(reader.is_gathering(), Ordering::Relaxed);
                std::thread::park_timeout(wait);
                asleep.store(false, Ordering::Relaxed);
                continue;
            }
            Ok(Next::End) => return,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        // Not idle, until the worker has been through with this one.
        idle.store(false, Ordering::Relaxed);
        // Nobody takes it any more when the run has failed elsewhere.
        let sent = match sender.try_send(read) {
            Err(TrySendError::Full(read)) => {
                let sent = shared.meters.backpressure.during(|| sender.send(read).is_ok());
                // The workers are behind: each of them goes to its own core, and none should have to wait for the one whose core is
                // shared.
                let times = shared.behind.fetch_add(1, Ordering::Relaxed);
                if let Some(cores) = &cores {
                    cores.go_to(times);
                }
                sent
            }
            sent => sent.is_ok(),
        };
        if !sent {
            return;
        }
        // The worker may be gone already, with the tick or without.
        let _ = activator.activate();
        if failed {
            return;
        }
    }
}
