// The jobs, and the form that submits one.

import { h } from '../lib/dom.js';
import { get, listOf, maybe, path, post, remove } from '../lib/api.js';
import * as f from '../lib/format.js';
import { spark } from '../lib/plot.js';
import { bar, button, choice, confirm, empty, faults, field, head, section, state, table } from '../lib/ui.js';

// Rates as they were seen while the page was open, by job.
const seen = new Map();
const SEEN_MAX = 60;
// Jobs that are asked for their status at each look.
const ASKED_MAX = 40;

export async function load(ctx, signal) {
  const jobs = listOf(await get('/jobs', signal), 'jobs');
  const asked = jobs.filter((job) => job.state === 'RUNNING').slice(0, ASKED_MAX);
  const statuses = new Map(await Promise.all(asked.map(async (job) => [job.id, await maybe(get(path('jobs', job.id, 'status'), signal))])));
  for (const job of jobs) {
    const status = statuses.get(job.id);
    if (!status) continue;
    const rates = seen.get(job.id) || [];
    rates.push(rateOf(status));
    seen.set(job.id, rates.slice(-SEEN_MAX));
  }
  return { jobs, statuses };
}

/** Rows that a job reads each second. */
export const rateOf = (status) => status.sources.reduce((sum, source) => sum + (source.rate || 0), 0);

/** Offsets that a job is behind, where its sources know; null where they do not. */
export function lagOf(status) {
  const known = status.sources.flatMap((source) => source.partitions || []).map((p) => p.lag).filter((lag) => lag !== null && lag !== undefined);
  return known.length ? known.reduce((sum, lag) => sum + lag, 0) : null;
}

const worth = (job) => ['FAILED', 'RESTARTING', 'STARTING', 'STOPPING', 'RUNNING'].indexOf(job.state) + 1 || 9;

export function view({ jobs, statuses }, ctx) {
  if (ctx.query.has('new')) return submitForm(ctx);
  const count = (name) => jobs.filter((job) => job.state === name).length;
  const filter = (ctx.state.filter || '').toLowerCase();
  const shown = jobs.filter((job) => `${job.name} ${job.id} ${job.state}`.toLowerCase().includes(filter)).sort((a, b) => worth(a) - worth(b) || String(a.name).localeCompare(b.name) || String(a.id).localeCompare(b.id));
  const total = [...statuses.values()].filter(Boolean).reduce((sum, status) => sum + rateOf(status), 0);
  const facts = [`${f.count(count('RUNNING'))} running`, count('FAILED') ? `${f.count(count('FAILED'))} failed` : null, `${f.count(jobs.length)} in all`, `${f.rate(total)} read`].filter(Boolean).join(' · ');
  const add = h('a', { class: 'button primary', href: '#/jobs?new' }, 'Submit a job');
  if (!jobs.length) {
    return [head('Jobs', null, add), empty('No job has been submitted', 'A job is a dataflow file. Submit one here, or from a terminal:', h('pre', null, 'tidemill submit dataflows/card_fraud.yaml'))];
  }
  const of = (row, what) => { const status = statuses.get(row.id); return status ? what(status) : h('span', { class: 'muted' }, '–'); };
  return [
    head('Jobs', facts, h('input', { type: 'search', class: 'search', placeholder: 'Filter', 'aria-label': 'Filter jobs', on: { input: (event) => ctx.set({ filter: event.target.value }) } }), add),
    shown.length ? table('Jobs', [
      { name: 'Job', of: (job) => [h('b', null, job.name), h('span', { class: 'sub' }, job.id)] },
      { name: 'State', of: (job) => [state(job.state), job.error && job.state !== 'RUNNING' ? h('span', { class: 'sub clip', title: job.error }, job.error) : null] },
      { name: 'Rate', num: true, title: 'Rows read each second', of: (job) => of(job, (status) => f.rate(rateOf(status))) },
      { name: 'Last 2 min', cls: 'wide-only', of: (job) => of(job, () => spark(seen.get(job.id) || [], 'Rows read each second, as seen by this page')) },
      { name: 'Lag', num: true, title: 'Offsets behind the brokers; event time behind the wall clock where the job has that clock', of: (job) => of(job, (status) => lagText(status)) },
      { name: 'Backpressure', cls: 'wide-only', title: 'Part of the last 10 s in which the reader waited for the graph', of: (job) => of(job, (status) => pressureBar(status.backpressure)) },
      { name: 'Dead letters', num: true, of: (job) => of(job, (status) => f.count(status.sources.reduce((sum, s) => sum + (s.dead || 0), 0))) },
      { name: 'Restarts', num: true, of: (job) => f.count(job.restarts) },
      { name: 'Version', num: true, of: (job) => job.version },
      { name: 'Since', of: (job) => f.ago(job.updated || job.created) },
      { name: '', cls: 'actions-cell', of: (job) => actions(job, ctx, true) },
    ], shown, { key: (job) => job.id, open: (job) => `#/jobs/${encodeURIComponent(job.id)}` }) : empty('No job has that in its name', 'Clear the filter to see all jobs.'),
  ];
}

/** A job's lag in its unit. */
export function lagText(status) {
  const lag = lagOf(status);
  if (lag !== null) return `${f.brief(lag)} rows`;
  return status.clock_lag_ms !== null && status.clock_lag_ms !== undefined ? f.duration(status.clock_lag_ms) : h('span', { class: 'muted', title: 'The clock of this job is the time of its events' }, 'event time');
}

/** Backpressure as a bar with its number. */
export function pressureBar(value) {
  const part = Number(value) || 0;
  const tone = part > 0.8 ? 'hot' : part > 0.4 ? 'warm' : '';
  return h('span', { class: 'bar-with' }, bar(part, tone, `backpressure ${f.share(part)}`), h('span', { class: 'num' }, f.share(part)));
}

/** The buttons that a job in this state has. */
export function actions(job, ctx, small = false) {
  const kind = small ? 'small' : '';
  const done = () => ctx.refresh();
  const running = ['RUNNING', 'STARTING', 'RESTARTING'].includes(job.state);
  if (job.state === 'STOPPING') return button('Stop now', () => stop(job, done, 'now'), { kind });
  if (running) return [button('Stop', () => stop(job, done), { kind }), button('Restart', () => restart(job, done), { kind })];
  return [button('Start', () => simple(job, 'start', `${job.name} starts`, done), { kind }), small ? null : button('Delete', () => erase(job, ctx), { kind: 'danger' })];
}

function simple(job, what, text, done) {
  confirm({ title: `${what[0].toUpperCase()}${what.slice(1)} ${job.name}?`, text: 'It goes on from its newest checkpoint.', action: what[0].toUpperCase() + what.slice(1), act: async () => { await post(path('jobs', job.id, what)); done(); return text; } });
}

function restart(job, done) {
  simple(job, 'restart', `${job.name} restarts`, done);
}

function stop(job, done, mode = 'checkpoint') {
  const savepoint = h('input', { name: 'savepoint', type: 'text', placeholder: 'directory or address, such as /backup/fraud', spellcheck: 'false' });
  confirm({
    title: `Stop ${job.name}?`,
    fields: [
      choice('mode', 'How', [
        ['checkpoint', 'Checkpoint', 'Finishes what was read, saves its state, ends. A start goes on there.'],
        ['drain', 'Drain', 'Lets the clock go to the end first, so that waiting rows and open windows come out.'],
        ['now', 'Now', 'Ends without a checkpoint; a start repeats what came after the last one.'],
      ], mode),
      field('Savepoint', savepoint, 'Left empty, none is taken.'),
    ],
    action: 'Stop', danger: true,
    act: async (form) => {
      const place = form.get('savepoint').trim();
      await post(path('jobs', job.id, 'stop'), place ? { mode: form.get('mode'), savepoint: place } : { mode: form.get('mode') });
      done();
      return `${job.name} is asked to stop`;
    },
  });
}

function erase(job, ctx) {
  confirm({
    title: `Delete ${job.name}?`, text: 'Its files, history and state are removed. Tables and topics stay.', action: 'Delete', danger: true,
    act: async () => { await remove(path('jobs', job.id)); ctx.go('#/jobs'); return `${job.name} is deleted`; },
  });
}

function submitForm(ctx) {
  const file = h('textarea', { name: 'file', rows: 20, spellcheck: 'false', class: 'code', required: true, placeholder: 'job: card_fraud\nversion: 1\n…', autocomplete: 'off' });
  const read = async (event) => {
    const chosen = event.target.files[0];
    if (chosen) document.querySelector('textarea[name=file]').value = await chosen.text();
  };
  const told = ctx.state.told;
  const send = async (form, what) => {
    ctx.set({ busy: what, told: null });
    try {
      const outcome = await post(what === 'check' ? '/check' : '/jobs', bodyOf(form));
      if (what === 'submit') { ctx.go(`#/jobs/${encodeURIComponent(outcome.id)}`); return; }
      ctx.set({ busy: null, told: { ok: outcome } });
    } catch (error) {
      ctx.set({ busy: null, told: { error } });
    }
  };
  return [
    head('Submit a job', null, h('a', { class: 'back', href: '#/jobs' }, '‹ Jobs')),
    h('form', {
      class: 'submit',
      on: { submit: (event) => { event.preventDefault(); send(event.currentTarget, event.submitter && event.submitter.value === 'check' ? 'check' : 'submit'); } },
    },
    h('div', { class: 'submit-file' },
      h('div', { class: 'label-line' }, h('label', { for: 'field-file' }, 'Dataflow file'), h('label', { class: 'quiet as-button' }, 'Open a file…', h('input', { type: 'file', accept: '.yaml,.yml,text/yaml', class: 'hidden', on: { change: read } }))),
      (file.id = 'field-file', file)),
    h('div', { class: 'submit-side' },
      field('Values', h('textarea', { name: 'values', rows: 4, class: 'code', spellcheck: 'false', placeholder: 'LAKE=/data/lake\nKAFKA=broker:9092' }), 'What ${…} in the file stands for: NAME=value, one each line.'),
      field('Changes', h('textarea', { name: 'set', rows: 3, class: 'code', spellcheck: 'false', placeholder: 'sources.tx.generator.rate=5000' }), 'As --set does: path.to.key=value, one each line.'),
      field('Workers', h('input', { name: 'workers', type: 'number', min: 1, max: 1024, value: '1', class: 'short' }), 'Threads that share the keys.'),
      field('From', h('input', { name: 'from', type: 'text', spellcheck: 'false', placeholder: 'savepoint, if any' }), 'Directory or address of a savepoint to begin with.'),
      h('div', { class: 'actions' },
        h('button', { type: 'submit', value: 'submit', class: 'button primary', disabled: Boolean(ctx.state.busy) }, 'Submit'),
        h('button', { type: 'submit', value: 'check', class: 'button', disabled: Boolean(ctx.state.busy) }, 'Check only')),
      told && told.error ? h('div', { class: 'trouble', role: 'alert' }, h('div', null, h('strong', null, told.error.faults.length ? `${told.error.faults.length} fault${told.error.faults.length > 1 ? 's' : ''} in the file` : told.error.title), told.error.faults.length ? faults(told.error.faults) : h('p', null, told.error.message))) : null,
      told && told.ok ? h('div', { class: 'fine', role: 'status' }, h('strong', null, 'The file can be run')) : null)),
    told && told.ok ? section('Plan', null, h('pre', { class: 'code-block' }, typeof told.ok === 'string' ? told.ok : told.ok.plan || told.ok.text || JSON.stringify(told.ok, null, 2))) : null,
  ];
}

function assignments(text, what) {
  const out = {};
  for (const line of String(text).split('\n').map((one) => one.trim()).filter(Boolean)) {
    const at = line.indexOf('=');
    if (at < 1) throw Object.assign(new Error(`${what}: write NAME=value, not “${line}”`), { title: 'Cannot read the form', faults: [] });
    out[line.slice(0, at).trim()] = line.slice(at + 1);
  }
  return out;
}

function bodyOf(form) {
  const data = new FormData(form);
  const body = { file: data.get('file'), values: assignments(data.get('values'), 'Values'), set: assignments(data.get('set'), 'Changes'), workers: Number(data.get('workers')) || 1 };
  if (data.get('from').trim()) body.from = data.get('from').trim();
  return body;
}

