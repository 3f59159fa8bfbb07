//! A view compiled to what its state must keep: the words of an entry, the windows, and which sums each needs.

use arrow::datatypes::{DataType, Schema};

use super::ViewError;
use super::columns::word_of_scalar;
use super::dense::Dense;
use super::value::Shape;
use crate::base::Micros;
use crate::features::numeric::{Accumulator, Scale};
use crate::plan::model::{AggregateFunction, Order, ViewPlan, Window};

/// How an input column is held in one word of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bits of an `f64`; null and NaN are one canonical NaN.
    Float,
    /// An `i64` of a narrower type; null is `i64::MIN`.
    Narrow,
    /// An `i64`; null by the entry's mask.
    Wide,
    /// A `u64`; null by the entry's mask.
    Unsigned,
    /// An interned text; null is `u64::MAX`.
    Bytes,
}

/// The word of a null float.
pub(super) const NULL_FLOAT: u64 = 0x7ff8_0000_0000_0000;
/// The word of a null of a narrow type.
pub(super) const NULL_NARROW: u64 = i64::MIN as u64;
/// The word of a null text.
pub(super) const NULL_TEXT: u64 = u64::MAX;

impl Kind {
    fn of(data_type: &DataType) -> Option<Kind> {
        use DataType::*;
        Some(match data_type {
            Float16 | Float32 | Float64 => Kind::Float,
            Boolean | Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32 | Date32 | Time32(_) => Kind::Narrow,
            Int64 | Date64 | Time64(_) | Timestamp(..) | Duration(_) => Kind::Wide,
            UInt64 => Kind::Unsigned,
            Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => Kind::Bytes,
            Dictionary(_, values) => return Kind::of(values),
            _ => return None,
        })
    }

    pub(super) fn scale(self) -> Scale {
        if self == Kind::Float { Scale::Fraction } else { Scale::One }
    }
}

/// Which sums an accumulator keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// The count alone.
    Count,
    /// And the sum.
    Sum,
    /// And the sum of squares.
    Squares,
}

/// An input column.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// Index into the stream's schema.
    pub(super) column: usize,
    pub(super) data_type: DataType,
    pub(super) kind: Kind,
    /// Its word in an entry.
    pub(super) word: usize,
    /// Its bit in the entry's mask, for kinds that have no word to spare for null.
    pub(super) mask: u64,
    /// Highest level that any window needs.
    pub(super) level: Level,
    /// Pairs of this input.
    pub(super) pairs: Vec<usize>,
    /// Wedges of this input.
    pub(super) wedges: Vec<usize>,
    /// Lifetime extrema of this input, as indices into [`Layout::life_extrema`].
    pub(super) life_extrema: Vec<usize>,
}

/// A window and an input whose sums it needs: one accumulator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) window: usize,
    pub(super) input: usize,
    pub(super) level: Level,
}

/// A window and an input whose smallest and largest value it needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extrema {
    pub(super) window: usize,
    pub(super) input: usize,
    /// Wedge of minima.
    pub(super) min: Option<usize>,
    /// Wedge of maxima (of complemented values).
    pub(super) max: Option<usize>,
    /// Whether the wedges keep nothing that has left this window, so that the answer is their first item.
    pub(super) front: bool,
    /// Index into [`Layout::life_extrema`], for lifetime windows.
    pub(super) life: Option<usize>,
}

/// A window of the view; all windows of a view end at the same time.
#[derive(Clone, Debug)]
pub(super) struct WindowSpec {
    /// `None` is lifetime.
    pub(super) width: Option<Micros>,
    /// The start is rounded down to a multiple of this.
    pub(super) grain: Option<Micros>,
    pub(super) pairs: Vec<usize>,
    pub(super) extrema: Vec<usize>,
    pub(super) lasts: Vec<usize>,
    /// Place among [`Layout::exact`], or none when tiles serve it.
    pub(super) exact: Option<usize>,
}

impl WindowSpec {
    /// Rows up to this time have left the window that ends at `head`.
    #[inline(always)]
    pub(super) fn bound(&self, head: i64) -> i64 {
        match (self.width, self.grain) {
            (None, _) => i64::MIN,
            (Some(width), None) => head.saturating_sub(width),
            (Some(width), Some(grain)) => {
                (head.saturating_sub(width).div_euclid(grain)).saturating_mul(grain).saturating_sub(1)
            }
        }
    }

    /// The head at which a row at `time` has left the window; `i64::MAX` when it never does.
    pub(super) fn leaves(&self, time: i64) -> i64 {
        match (self.width, self.grain) {
            (None, _) => i64::MAX,
            (Some(width), None) => time.saturating_add(width),
            (Some(width), Some(grain)) => {
                (time.div_euclid(grain).saturating_add(1)).saturating_mul(grain).saturating_add(width)
            }
        }
    }

    fn reach(&self) -> Option<Micros> {
        self.width.map(|w| w.saturating_add(self.grain.unwrap_or(0)))
    }
}

/// Windows each of which holds the one before, so that one backward scan serves them all.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// From the narrowest.
    pub(super) windows: Vec<usize>,
    /// Inputs with the highest level and whether extrema are needed.
    pub(super) inputs: Vec<(usize, Level, bool)>,
}

/// Windows served by tiles of one width.
#[derive(Clone, Debug)]
pub(super) struct Track {
    pub(super) grain: Micros,
    pub(super) windows: Vec<usize>,
    /// Inputs with the level that a tile keeps.
    pub(super) inputs: Vec<(usize, Level)>,
    /// Inputs whose extrema a tile keeps (none when rows come in order: the wedges suffice).
    pub(super) extrema: Vec<usize>,
    /// Place of `inputs` of each input, if any.
    pub(super) wedges: Vec<usize>,
    /// Longest reach of its windows.
    pub(super) reach: Micros,
}

/// A wedge of a dense record.
#[derive(Clone, Copy, Debug)]
pub(super) struct WedgeSpec {
    /// Tiles that it follows, or none when it follows entries.
    pub(super) track: Option<usize>,
    pub(super) input: usize,
    /// Keeps maxima.
    pub(super) max: bool,
    /// Longest reach of the windows that ask it.
    pub(super) reach: Micros,
}

/// What an output column is made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Rows { window: usize },
    Count { pair: usize },
    Sum { pair: usize },
    Mean { pair: usize },
    Variance { pair: usize, sample: bool, root: bool },
    Min { extrema: usize, pair: usize },
    Max { extrema: usize, pair: usize },
    Last { last: usize },
}

/// An output column.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub(super) source: Source,
    pub(super) kind: Kind,
    pub(super) data_type: DataType,
    /// Type of the input, of which extrema and last values are.
    pub(super) input_type: DataType,
    /// Word of the default, in the form in which the column is gathered.
    pub(super) default: Option<u64>,
    /// A default text.
    pub(super) default_text: Option<Vec<u8>>,
}

/// Everything that is known of a view before its first row.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Words of an entry.
    pub(super) stride: usize,
    /// Word of the position, kept when the order among rows of one time matters.
    pub(super) ord: Option<usize>,
    /// Word of the null mask.
    pub(super) mask: Option<usize>,
    pub(super) inputs: Vec<Input>,
    pub(super) windows: Vec<WindowSpec>,
    pub(super) pairs: Vec<Pair>,
    pub(super) extrema: Vec<Extrema>,
    /// (window, input) of last values.
    pub(super) lasts: Vec<(usize, usize)>,
    pub(super) chains: Vec<Chain>,
    pub(super) exact: Vec<usize>,
    pub(super) tracks: Vec<Track>,
    pub(super) wedges: Vec<WedgeSpec>,
    /// Pairs of lifetime windows.
    pub(super) life_pairs: Vec<usize>,
    /// Extrema of lifetime windows.
    pub(super) life_extrema: Vec<usize>,
    pub(super) outputs: Vec<Output>,
    pub(super) delay: Micros,
    pub(super) include_current: bool,
    /// How far behind its newest row a key may still be asked or added to.
    pub(super) slack: Micros,
    /// How long a compact record keeps entries behind its head.
    pub(super) keep: Micros,
    /// How long a dense record keeps entries behind its head; `None` keeps none.
    pub(super) keep_dense: Option<Micros>,
    /// The newest row at or before every head is kept whatever its age.
    pub(super) keep_last: bool,
    /// Dropping a row means no more than moving on: no text to release, no lifetime sum to move it to.
    pub(super) plain: bool,
    /// A busy key's rows, once there, change no more until they go, though others may come between them, and they are all that is
    /// saved of it but for numbers.
    pub(super) settled: bool,
    /// Whether some text must be released with its row.
    pub(super) texts: bool,
    /// Some window is lifetime, or last values are kept: a key is never dropped.
    pub(super) forever: bool,
    /// The level of all sums, when the only input is one float and entries are a time and that float.
    pub(super) solo: Option<Level>,
    /// Rows come in order, are asked for at once, and only the one float's trailing sums and extrema are kept: a dense
    /// record takes a row in and answers in one pass.
    pub(super) fused: bool,
    /// Fused; and there are no tiles, the only sums of each window have the window's number, and either no extrema are
    /// kept, or both of every window.
    pub(super) paired: bool,
    /// Fused; all windows have tiles, the only sums of each window have the window's number, and either no extrema are kept,
    /// or both of every window: between two edges of tiles a batch's rows go through a lane.
    pub(super) laned: bool,
    /// Whether refresh is on: records have a word more.
    pub(super) refresh: bool,
    /// Where the lifetime sums of a compact record begin.
    pub(super) base_at: usize,
    /// Where the entries of a compact record begin.
    pub(super) entries_at: usize,
    /// Where windows have tiles: how a busy key is held until it has so many rows that tiles are worth while.
    pub(super) by_rows: Option<Box<Layout>>,
}

impl Layout {
    pub(super) fn new(
        plan: &ViewPlan,
        schema: &Schema,
        order: Order,
        refresh: bool,
        revise_within: Option<Micros>,
    ) -> Result<Layout, ViewError> {
        let mut layout = Layout::make(plan, schema, order, refresh, revise_within, true)?;
        if !layout.tracks.is_empty() && layout.plain {
            let by_rows = Layout::make(plan, schema, order, refresh, revise_within, false)?;
            layout.by_rows = Some(Box::new(by_rows)).filter(|by_rows| by_rows.settled);
        }
        Ok(layout)
    }

    /// The layout by which a busy key is held.
    #[inline(always)]
    pub(super) fn of(&self, dense: &Dense) -> &Layout {
        if dense.by_rows { self.rows() } else { self }
    }

    /// The layout of busy keys that are held by rows.
    #[inline(always)]
    pub(super) fn rows(&self) -> &Layout {
        self.by_rows.as_deref().unwrap_or(self)
    }

    fn make(
        plan: &ViewPlan,
        schema: &Schema,
        order: Order,
        refresh: bool,
        revise_within: Option<Micros>,
        tiles: bool,
    ) -> Result<Layout, ViewError> {
        let revisable = revise_within.is_some();
        let mut layout = Layout {
            stride: 0,
            ord: None,
            mask: None,
            inputs: Vec::new(),
            windows: Vec::new(),
            pairs: Vec::new(),
            extrema: Vec::new(),
            lasts: Vec::new(),
            chains: Vec::new(),
            exact: Vec::new(),
            tracks: Vec::new(),
            wedges: Vec::new(),
            life_pairs: Vec::new(),
            life_extrema: Vec::new(),
            outputs: Vec::new(),
            delay: plan.delay.max(0),
            include_current: plan.include_current,
            slack: if order == Order::Arrival { plan.disorder.max(0) } else { 0 },
            keep: 0,
            keep_dense: None,
            keep_last: false,
            plain: false,
            settled: false,
            texts: false,
            forever: false,
            solo: None,
            fused: false,
            paired: false,
            laned: false,
            refresh,
            base_at: 0,
            entries_at: 0,
            by_rows: None,
        };
        for aggregate in &plan.aggregates {
            layout.add_output(plan, aggregate, schema)?;
        }
        layout.place_words(revisable);
        layout.place_windows(tiles && !revisable);
        layout.place_wedges();
        layout.place_fronts();
        layout.make_chains();
        let reach = |windows: &mut dyn Iterator<Item = &WindowSpec>| windows.filter_map(WindowSpec::reach).max();
        let horizon = revise_within.unwrap_or(0).max(0);
        let all = reach(&mut layout.windows.iter()).unwrap_or(0);
        layout.keep = all.max(horizon).saturating_add(layout.slack);
        let exact = reach(&mut layout.exact.iter().map(|w| &layout.windows[*w]));
        let tile = layout.tracks.iter().map(|t| t.grain).max();
        layout.keep_last = layout.windows.iter().any(|w| w.width.is_none() && !w.lasts.is_empty());
        layout.keep_dense =
            match (exact, tile) {
                (Some(width), _) => Some(width),
                (None, Some(_)) if layout.slack == 0 && !layout.keep_last => None,
                _ if layout.keep_last || layout.slack > 0 || revisable => Some(0),
                _ => None,
            }
            .map(|width| width.max(horizon).saturating_add(layout.slack))
            // A row may be asked for behind the head, so the tile that it would cut must still be there row by row.
            .map(|width| {
                if layout.slack > 0 { width.max(layout.slack.saturating_add(tile.unwrap_or(0))) } else { width }
            });
        layout.texts = layout.inputs.iter().any(|i| i.kind == Kind::Bytes);
        let lifetime = layout.windows.iter().any(|w| w.width.is_none());
        layout.forever = lifetime;
        layout.plain = !layout.texts && !lifetime && !layout.keep_last && layout.slack == 0 && horizon == 0;
        let only_rows = layout.tracks.is_empty() && layout.keep_dense.is_some();
        layout.settled = only_rows && !layout.texts && !lifetime && !layout.keep_last && horizon == 0;
        if let [input] = layout.inputs.as_slice()
            && input.kind == Kind::Float
            && layout.stride == 2
            && layout.life_extrema.is_empty()
            && input.level > Level::Count
            && layout.chains.len() == 1
        {
            // A pair that needs less may keep more.
            layout.solo = Some(input.level);
        }
        layout.fused = layout.solo.is_some()
            && layout.slack == 0
            && layout.delay == 0
            && layout.include_current
            && horizon == 0
            && !lifetime
            && layout.lasts.is_empty();
        let even = layout.fused && layout.is_even();
        layout.paired = even && layout.tracks.is_empty() && layout.keep_dense.is_some();
        layout.laned = even && layout.exact.is_empty();
        layout.base_at = 2 + usize::from(refresh);
        layout.entries_at = layout.base_at
            + if lifetime {
                1 + Accumulator::WORDS * layout.life_pairs.len() + 2 * layout.life_extrema.len()
            } else {
                0
            };
        Ok(layout)
    }

    fn add_output(
        &mut self,
        plan: &ViewPlan,
        aggregate: &crate::plan::model::AggregatePlan,
        schema: &Schema,
    ) -> Result<(), ViewError> {
        use AggregateFunction as F;
        let width = match aggregate.window {
            Window::Trailing(width) if width > 0 => Some(width),
            Window::Trailing(width) => {
                return Err(ViewError::Window {
                    view: plan.name.clone(),
                    aggregate: aggregate.name.clone(),
                    micros: width,
                });
            }
            Window::Lifetime => None,
        };
        let grain = aggregate.resolution.filter(|r| *r > 1 && width.is_some());
        let window = match self.windows.iter().position(|w| w.width == width && w.grain == grain) {
            Some(at) => at,
            None => {
                self.windows.push(WindowSpec {
                    width,
                    grain,
                    pairs: Vec::new(),
                    extrema: Vec::new(),
                    lasts: Vec::new(),
                    exact: None,
                });
                self.windows.len() - 1
            }
        };
        let Some(column) = aggregate.input else {
            if aggregate.function != F::Count {
                return Err(ViewError::Input { view: plan.name.clone(), aggregate: aggregate.name.clone() });
            }
            return self.push_output(plan, aggregate, Source::Rows { window }, Kind::Wide, DataType::Int64);
        };
        let field = schema.fields().get(column).ok_or_else(|| ViewError::Column {
            view: plan.name.clone(),
            what: format!("column {column} of aggregate {}", aggregate.name),
        })?;
        let data_type = match field.data_type() {
            DataType::Dictionary(_, values) => values.as_ref().clone(),
            other => other.clone(),
        };
        let unsupported = || ViewError::Unsupported {
            view: plan.name.clone(),
            aggregate: aggregate.name.clone(),
            data_type: data_type.clone(),
        };
        let kind = Kind::of(&data_type).ok_or_else(unsupported)?;
        if kind == Kind::Bytes && !matches!(aggregate.function, F::Count | F::Last) {
            return Err(unsupported());
        }
        let input = match self.inputs.iter().position(|i| i.column == column) {
            Some(at) => at,
            None => {
                self.inputs.push(Input {
                    column,
                    data_type: data_type.clone(),
                    kind,
                    word: 0,
                    mask: 0,
                    level: Level::Count,
                    pairs: Vec::new(),
                    wedges: Vec::new(),
                    life_extrema: Vec::new(),
                });
                self.inputs.len() - 1
            }
        };
        let source = match aggregate.function {
            F::Count => Source::Count { pair: self.pair(window, input, Level::Count) },
            F::Sum => Source::Sum { pair: self.pair(window, input, Level::Sum) },
            F::Mean => Source::Mean { pair: self.pair(window, input, Level::Sum) },
            F::Variance | F::VarianceSample | F::Stddev | F::StddevSample => Source::Variance {
                pair: self.pair(window, input, Level::Squares),
                sample: matches!(aggregate.function, F::VarianceSample | F::StddevSample),
                root: matches!(aggregate.function, F::Stddev | F::StddevSample),
            },
            F::Min | F::Max => {
                let pair = self.pair(window, input, Level::Count);
                let extrema = self.extremum(window, input);
                let track = usize::MAX;
                let wedge = if aggregate.function == F::Min {
                    &mut self.extrema[extrema].min
                } else {
                    &mut self.extrema[extrema].max
                };
                *wedge = Some(track);
                if aggregate.function == F::Min { Source::Min { extrema, pair } } else { Source::Max { extrema, pair } }
            }
            F::Last => Source::Last { last: self.last(window, input) },
        };
        self.push_output(plan, aggregate, source, kind, data_type)
    }

    fn push_output(
        &mut self,
        plan: &ViewPlan,
        aggregate: &crate::plan::model::AggregatePlan,
        source: Source,
        kind: Kind,
        input_type: DataType,
    ) -> Result<(), ViewError> {
        let mut output = Output {
            source,
            kind,
            data_type: aggregate.output_type.clone(),
            input_type,
            default: None,
            default_text: None,
        };
        let counts = matches!(source, Source::Rows { .. } | Source::Count { .. });
        if let Some(default) = aggregate.default.as_ref().filter(|d| !d.is_null()) {
            let bad = || ViewError::Default {
                view: plan.name.clone(),
                aggregate: aggregate.name.clone(),
                value: default.to_string(),
                data_type: aggregate.output_type.clone(),
            };
            match word_of_scalar(default, &output).map_err(|()| bad())? {
                Ok(word) => output.default = Some(word),
                Err(text) => output.default_text = Some(text),
            }
        } else if counts && aggregate.default.is_none() {
            output.default = Some(0);
        }
        self.outputs.push(output);
        Ok(())
    }

    fn pair(&mut self, window: usize, input: usize, level: Level) -> usize {
        self.inputs[input].level = self.inputs[input].level.max(level);
        if let Some(at) = self.pairs.iter().position(|p| p.window == window && p.input == input) {
            self.pairs[at].level = self.pairs[at].level.max(level);
            return at;
        }
        self.pairs.push(Pair { window, input, level });
        let at = self.pairs.len() - 1;
        self.windows[window].pairs.push(at);
        self.inputs[input].pairs.push(at);
        at
    }

    fn extremum(&mut self, window: usize, input: usize) -> usize {
        if let Some(at) = self.extrema.iter().position(|e| e.window == window && e.input == input) {
            return at;
        }
        self.extrema.push(Extrema { window, input, min: None, max: None, front: false, life: None });
        self.windows[window].extrema.push(self.extrema.len() - 1);
        self.extrema.len() - 1
    }

    fn last(&mut self, window: usize, input: usize) -> usize {
        if let Some(at) = self.lasts.iter().position(|l| *l == (window, input)) {
            return at;
        }
        self.lasts.push((window, input));
        self.windows[window].lasts.push(self.lasts.len() - 1);
        self.lasts.len() - 1
    }

    fn place_words(&mut self, revisable: bool) {
        let mut word = 1;
        if revisable || !self.lasts.is_empty() {
            self.ord = Some(word);
            word += 1;
        }
        if self.inputs.iter().any(|i| matches!(i.kind, Kind::Wide | Kind::Unsigned)) {
            self.mask = Some(word);
            word += 1;
        }
        let mut bit = 0;
        for input in &mut self.inputs {
            input.word = word;
            word += 1;
            if matches!(input.kind, Kind::Wide | Kind::Unsigned) {
                // More than 64 such inputs share bits: see `columns`, which refuses them.
                input.mask = 1u64.checked_shl(bit).unwrap_or(0);
                bit += 1;
            }
        }
        self.stride = word;
    }

    fn place_windows(&mut self, tiles: bool) {
        for at in 0..self.windows.len() {
            let window = &mut self.windows[at];
            match window.grain {
                // A revision takes back what a row gave, so its rows stay apart; so does a last value.
                Some(grain) if tiles && window.lasts.is_empty() => {
                    let track = match self.tracks.iter().position(|t| t.grain == grain) {
                        Some(track) => track,
                        None => {
                            self.tracks.push(Track {
                                grain,
                                windows: Vec::new(),
                                inputs: Vec::new(),
                                extrema: Vec::new(),
                                wedges: Vec::new(),
                                reach: 0,
                            });
                            self.tracks.len() - 1
                        }
                    };
                    let reach = window.reach().unwrap_or(0);
                    let pairs = window.pairs.clone();
                    let extrema = window.extrema.clone();
                    let track = &mut self.tracks[track];
                    track.windows.push(at);
                    track.reach = track.reach.max(reach);
                    for pair in pairs.iter().map(|p| self.pairs[*p]) {
                        match track.inputs.iter_mut().find(|(input, _)| *input == pair.input) {
                            Some((_, level)) => *level = (*level).max(pair.level),
                            None => track.inputs.push((pair.input, pair.level)),
                        }
                    }
                    if self.slack > 0 {
                        for e in extrema.iter().map(|e| self.extrema[*e]) {
                            if !track.extrema.contains(&e.input) {
                                track.extrema.push(e.input);
                            }
                        }
                    }
                }
                _ => {
                    window.exact = Some(self.exact.len());
                    self.exact.push(at);
                }
            }
            if self.windows[at].width.is_none() {
                self.life_pairs.extend(&self.windows[at].pairs);
                for e in self.windows[at].extrema.clone() {
                    self.extrema[e].life = Some(self.life_extrema.len());
                    self.inputs[self.extrema[e].input].life_extrema.push(self.life_extrema.len());
                    self.life_extrema.push(e);
                }
            }
        }
    }

    fn place_wedges(&mut self) {
        for at in 0..self.extrema.len() {
            let e = self.extrema[at];
            if e.life.is_some() {
                continue;
            }
            let track = self.tracks.iter().position(|t| t.windows.contains(&e.window));
            for max in [false, true] {
                if if max { e.max } else { e.min }.is_none() {
                    continue;
                }
                let spec = |w: &WedgeSpec| w.track == track && w.input == e.input && w.max == max;
                let wedge = match self.wedges.iter().position(spec) {
                    Some(wedge) => wedge,
                    None => {
                        self.wedges.push(WedgeSpec { track, input: e.input, max, reach: 0 });
                        self.inputs[e.input].wedges.push(self.wedges.len() - 1);
                        if let Some(track) = track {
                            self.tracks[track].wedges.push(self.wedges.len() - 1);
                        }
                        self.wedges.len() - 1
                    }
                };
                let reach = self.windows[e.window].reach().unwrap_or(0);
                self.wedges[wedge].reach = self.wedges[wedge].reach.max(reach);
                let place = &mut self.extrema[at];
                *(if max { &mut place.max } else { &mut place.min }) = Some(wedge);
            }
        }
    }

    /// Whether the only sums of each window have the window's number, and either no extrema are kept, or both of every window.
    fn is_even(&self) -> bool {
        let mut windows = 0..self.windows.len();
        let both = |w: usize| self.extrema.get(w).is_some_and(|e| e.window == w && e.min.is_some() && e.max.is_some());
        windows.clone().all(|w| self.windows[w].pairs == [w])
            && (self.extrema.is_empty() || (self.extrema.len() == windows.len() && windows.all(both)))
    }

    /// Finds the windows whose answers are the wedges' first items, once all reaches are known. Where a start is rounded,
    /// that holds of tiles alone: of the rows within reach some may be before it.
    fn place_fronts(&mut self) {
        for e in self.extrema.iter_mut().filter(|e| e.life.is_none()) {
            let window = &self.windows[e.window];
            let (reach, rounded) = (window.reach(), window.grain.is_some());
            let first = |w: &WedgeSpec| Some(w.reach) == reach && (!rounded || w.track.is_some());
            e.front = [e.min, e.max].into_iter().flatten().all(|w| first(&self.wedges[w]));
        }
    }

    fn make_chains(&mut self) {
        let mut windows: Vec<usize> = (0..self.windows.len()).collect();
        windows.sort_by_key(|w| self.windows[*w].reach().unwrap_or(i64::MAX));
        for at in windows {
            // The wider window holds the narrower at every head when its width covers the narrower one's rounded start.
            let holds = |inner: usize| {
                self.windows[at].width.is_none_or(|width| self.windows[inner].reach().is_some_and(|r| r <= width))
            };
            match self.chains.iter_mut().find(|c| c.windows.last().is_some_and(|w| holds(*w))) {
                Some(chain) => chain.windows.push(at),
                None => self.chains.push(Chain { windows: vec![at], inputs: Vec::new() }),
            }
        }
        for chain in &mut self.chains {
            for window in &chain.windows {
                let pairs =
                    self.windows[*window].pairs.iter().map(|p| (self.pairs[*p].input, self.pairs[*p].level, false));
                let extrema =
                    self.windows[*window].extrema.iter().map(|e| (self.extrema[*e].input, Level::Count, true));
                for (input, level, extrema) in pairs.chain(extrema) {
                    match chain.inputs.iter_mut().find(|i| i.0 == input) {
                        Some(found) => *found = (input, found.1.max(level), found.2 || extrema),
                        None => chain.inputs.push((input, level, extrema)),
                    }
                }
            }
        }
    }

    /// Order of entries: time, then position where it is kept.
    #[inline(always)]
    pub(super) fn is_after<S: Shape>(&self, a: &[u64], b: &[u64]) -> bool {
        let (x, y) = (a[0] as i64, b[0] as i64);
        if S::KIND.is_some() {
            return x > y;
        }
        x > y || (x == y && self.ord.is_some_and(|ord| a[ord] > b[ord]))
    }
}
