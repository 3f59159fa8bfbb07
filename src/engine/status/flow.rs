//! The dataflow as a graph whose nodes count what goes through them.
//!
//! Workers build the same graph and share its nodes. A batch costs an addition where it leaves an operator and one where the
//! next one takes it up; what waits between the two is the difference. Nothing is locked while rows flow.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::NodeKind;

/// The graph of a job.
#[derive(Default)]
pub struct Flow {
    nodes: Mutex<Vec<Arc<Node>>>,
}

/// Something that rows go through.
pub struct Node {
    /// Names it among the others.
    pub id: String,
    /// What it is.
    pub kind: NodeKind,
    /// Its name in the file.
    pub name: String,
    /// Rows that have left it.
    out: Arc<AtomicU64>,
    /// Rows come and go here at once: it is a name for what leaves another.
    passes: bool,
    /// Rows that have come in, where no port counts them.
    came: AtomicU64,
    /// Rows that wait to come in, where no port counts them.
    waits: AtomicU64,
    busy_ns: AtomicU64,
    /// Keys and bytes of its state; changed by differences.
    state: Option<(AtomicU64, AtomicU64)>,
    ports: Mutex<Vec<(usize, Arc<Inlet>)>>,
    edges: Mutex<Vec<String>>,
}

/// Where rows come into a node.
pub struct Inlet {
    /// Rows that were sent here: those that left the node before. Without it those count that have arrived.
    sent: Option<Arc<AtomicU64>>,
    /// Rows that have arrived, where nothing says how many were sent; and those that a start had saved.
    arrived: AtomicU64,
    taken: AtomicU64,
}

/// What a node has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Rows in.
    pub rows_in: u64,
    /// Rows out.
    pub rows_out: u64,
    /// Rows that wait.
    pub queued: u64,
    /// Time spent.
    pub busy: Duration,
    /// Keys and bytes of its state.
    pub state: Option<(u64, u64)>,
}

impl Flow {
    /// The node of this kind and name.
    pub fn node(&self, kind: NodeKind, name: &str) -> Arc<Node> {
        self.entry(kind, name, None)
    }

    /// A node by which what leaves another goes by a name of its own.
    pub fn passing(&self, kind: NodeKind, name: &str, from: &Node) -> Arc<Node> {
        let node = self.entry(kind, name, Some(Arc::clone(&from.out)));
        node.edge(from);
        node
    }

    fn entry(&self, kind: NodeKind, name: &str, passing: Option<Arc<AtomicU64>>) -> Arc<Node> {
        let id = id(kind, name);
        let mut nodes = lock(&self.nodes);
        if let Some(node) = nodes.iter().find(|node| node.id == id) {
            return Arc::clone(node);
        }
        let node = Arc::new(Node {
            id,
            kind,
            name: name.to_owned(),
            passes: passing.is_some(),
            out: passing.unwrap_or_default(),
            came: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            state: (kind == NodeKind::View).then(Default::default),
            ports: Mutex::default(),
            edges: Mutex::default(),
        });
        nodes.push(Arc::clone(&node));
        node
    }

    /// The node of this kind and name, if it is there.
    pub fn find(&self, kind: NodeKind, name: &str) -> Option<Arc<Node>> {
        let id = id(kind, name);
        lock(&self.nodes).iter().find(|node| node.id == id).cloned()
    }

    /// All nodes, in the order in which they were made.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        lock(&self.nodes).clone()
    }
}

fn id(kind: NodeKind, name: &str) -> String {
    let kind = match kind {
        NodeKind::Source => "source",
        NodeKind::Join => "join",
        NodeKind::View => "view",
        NodeKind::Set => "set",
        NodeKind::Model => "model",
        NodeKind::Monitor => "monitor",
        NodeKind::Sink => "sink",
    };
    format!("{kind}:{name}")
}

impl Node {
    /// Its input `index`, fed with all that leaves `from`.
    pub fn inlet(&self, index: usize, from: &Node) -> Arc<Inlet> {
        self.edge(from);
        self.port(index, Some(Arc::clone(&from.out)))
    }

    /// Its input `index`, fed with something that others tell apart from the rest of their rows.
    pub fn side_inlet(&self, index: usize, from: &[Arc<Node>]) -> Arc<Inlet> {
        from.iter().for_each(|from| self.edge(from));
        self.port(index, None)
    }

    fn port(&self, index: usize, sent: Option<Arc<AtomicU64>>) -> Arc<Inlet> {
        let mut ports = lock(&self.ports);
        if let Some((_, port)) = ports.iter().find(|(number, _)| *number == index) {
            return Arc::clone(port);
        }
        let port = Arc::new(Inlet { sent, arrived: AtomicU64::new(0), taken: AtomicU64::new(0) });
        ports.push((index, Arc::clone(&port)));
        port
    }

    /// Rows come from another node.
    pub fn edge(&self, from: &Node) {
        let mut edges = lock(&self.edges);
        if !edges.contains(&from.id) {
            edges.push(from.id.clone());
        }
    }

    /// Where its rows come from.
    pub fn edges(&self) -> Vec<String> {
        lock(&self.edges).clone()
    }

    /// Rows have left it.
    pub fn sent(&self, rows: usize) {
        self.out.fetch_add(rows as u64, Relaxed);
    }

    /// It has worked so long.
    pub fn worked(&self, time: Duration) {
        self.busy_ns.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// It has worked so long in all.
    pub fn has_worked(&self, time: Duration) {
        self.busy_ns.store(time.as_nanos() as u64, Relaxed);
    }

    /// So many rows have come in, in all, where no port counts them.
    pub fn came(&self, rows: u64) {
        self.came.store(rows, Relaxed);
    }

    /// So many rows are, or were, there to leave.
    pub fn ahead(&self, rows: u64) {
        self.waits.store(rows, Relaxed);
    }

    /// Its state has changed from so many keys and bytes to so many.
    pub fn holds(&self, before: (u64, u64), now: (u64, u64)) {
        if let Some((keys, bytes)) = &self.state {
            keys.fetch_add(now.0.wrapping_sub(before.0), Relaxed);
            bytes.fetch_add(now.1.wrapping_sub(before.1), Relaxed);
        }
    }

    /// What it has counted.
    pub fn counted(&self) -> Counted {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let state = self.state.as_ref().map(|(keys, bytes)| (load(keys), load(bytes)));
        let busy = Duration::from_nanos(load(&self.busy_ns));
        let ports = lock(&self.ports);
        // What was taken is looked at before what was sent, so that a row on its way is not counted below nothing.
        let taken: Vec<u64> = ports.iter().map(|(_, port)| load(&port.taken)).collect();
        let rows_out = load(&self.out);
        if self.passes {
            return Counted { rows_in: rows_out, rows_out, queued: 0, busy, state };
        }
        let sent = |port: &Inlet| load(&port.arrived) + port.sent.as_deref().map_or(0, load);
        let mut queued: u64 =
            ports.iter().zip(&taken).map(|((_, port), taken)| sent(port).saturating_sub(*taken)).sum();
        if self.kind == NodeKind::Source {
            queued += load(&self.waits).saturating_sub(rows_out);
        }
        Counted { rows_in: taken.iter().sum::<u64>() + load(&self.came), rows_out, queued, busy, state }
    }
}

impl Inlet {
    /// Rows have arrived, and wait.
    pub fn arrived(&self, rows: usize) {
        if self.sent.is_none() {
            self.arrived.fetch_add(rows as u64, Relaxed);
        }
    }

    /// Rows wait that an earlier start had read.
    pub fn restored(&self, rows: usize) {
        self.arrived.fetch_add(rows as u64, Relaxed);
    }

    /// Rows were taken up.
    pub fn taken(&self, rows: usize) {
        if rows > 0 {
            self.taken.fetch_add(rows as u64, Relaxed);
        }
    }
}

/// A panic elsewhere leaves the list as it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_and_not_taken_waits() {
        let flow = Flow::default();
        let source = flow.node(NodeKind::Source, "tx");
        let view = flow.node(NodeKind::View, "customer");
        let inlet = view.inlet(0, &source);
        inlet.restored(5);
        source.ahead(30);
        source.sent(20);
        inlet.taken(12);
        assert_eq!((view.counted().rows_in, view.counted().queued), (12, 13));
        assert_eq!(source.counted().queued, 10, "read, and not sent");
        // Another worker finds the same.
        flow.node(NodeKind::View, "customer").inlet(0, &source).taken(13);
        assert_eq!((view.counted().rows_in, view.counted().queued), (25, 0));
        let side = view.side_inlet(1, &[]);
        side.arrived(4);
        side.taken(1);
        assert_eq!(view.counted().queued, 3);
        view.sent(25);
        let set = flow.passing(NodeKind::Set, "inputs", &view);
        assert_eq!((set.counted().rows_in, set.counted().rows_out, set.counted().queued), (25, 25, 0));
        assert_eq!((set.edges(), view.edges()), (vec![view.id.clone()], vec![source.id.clone()]));
    }
}
