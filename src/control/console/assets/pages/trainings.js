// Training runs: the queue, the steps of each, what tuning found.

import { h } from '../lib/dom.js';
import { get, listOf, path } from '../lib/api.js';
import * as f from '../lib/format.js';
import { card, columns, plot } from '../lib/plot.js';
import { bar, empty, fact, head, pairs, section, state, table } from '../lib/ui.js';

export async function load(ctx, signal) {
  if (ctx.parts[1]) return get(path('trainings', ctx.parts[1]), signal);
  return { trainings: listOf(await get('/trainings', signal), 'trainings') };
}

export function view(data, ctx) {
  if (ctx.parts[1]) return one(data, ctx);
  const list = [...data.trainings].reverse();
  const count = (name) => list.filter((run) => run.state === name).length;
  return [
    head('Trainings', `${f.count(count('running'))} running · ${f.count(count('queued'))} queued · ${f.count(list.length)} in all`),
    list.length ? table('Trainings', [
      { name: 'Run', of: (run) => [h('b', null, run.batch), h('span', { class: 'sub' }, run.id)] },
      { name: 'State', of: (run) => [state(run.state), run.interrupted ? h('span', { class: 'sub' }, 'was interrupted') : null] },
      { name: 'Steps', of: (run) => progress(run) },
      { name: 'Model', of: (run) => run.model || '–' },
      { name: 'Why', cls: 'text', of: (run) => run.why || run.cause },
      { name: 'Submitted', of: (run) => f.time(run.submitted) },
      { name: 'Since', of: (run) => f.ago(run.since) },
    ], list, { key: (run) => run.id, open: (run) => `#/trainings/${encodeURIComponent(run.id)}` })
      : empty('No training has been asked for', 'A job with `retrain` asks for one on drift, on alerts or by the clock. By hand:', h('pre', null, 'tidemill train dataflows/card_fraud_retrain.yaml')),
  ];
}

const over = (step) => ['done', 'skipped'].includes(step.state);

function progress(run) {
  const steps = run.steps || [];
  if (!steps.length) return h('span', { class: 'muted' }, '–');
  const done = steps.filter(over).length;
  const now = steps.find((step) => step.state === 'running');
  return h('span', { class: 'bar-with' }, bar(done / steps.length, '', `${done} of ${steps.length} steps`), h('span', { class: 'num' }, `${done}/${steps.length}`), now ? h('span', { class: 'muted' }, now.name) : null);
}

function one(run, ctx) {
  const { n, width } = columns(ctx.room(), 420);
  const tuned = run.steps.filter((step) => step.facts && trials(step.facts).length);
  return [
    head([run.batch, ' ', state(run.state)], [fact('Run', run.id), fact('Model', run.model || '–'), fact('Job', run.job ? h('a', { href: `#/jobs/${encodeURIComponent(run.job)}` }, run.job) : '–'), fact('Asked for', run.cause), fact('Submitted', f.time(run.submitted)), fact('Since', f.ago(run.since))], h('a', { class: 'back', href: '#/trainings' }, '‹ Trainings')),
    run.why ? h('div', { class: run.state === 'failed' ? 'trouble' : 'remark', role: 'alert' }, h('div', null, h('strong', null, run.state === 'failed' ? 'It failed' : 'Why it ended'), h('p', null, run.why))) : null,
    section('Steps', null, table('Steps', [
      { name: 'Step', of: (step) => h('b', null, step.name) },
      { name: 'State', of: (step) => state(step.state) },
      { name: 'Attempt', num: true, of: (step) => step.attempt ?? '' },
      { name: 'Took', num: true, of: (step) => (step.seconds !== null && step.seconds !== undefined ? f.duration(step.seconds * 1000) : '') },
      { name: 'Since', of: (step) => f.time(step.at) },
      { name: '', cls: 'text', of: (step) => step.why || short(step.facts) },
    ], run.steps, { key: (step) => step.name })),
    tuned.map((step) => section(`Tuning in ${step.name}`, null, h('div', { class: `plots n${n}` }, tuning(step.facts, width)), trialTable(step.facts))),
    run.steps.filter((step) => step.facts && Object.keys(step.facts).length).map((step) => h('details', { key: `facts ${step.name}`, class: 'model-card' }, h('summary', null, `What ${step.name} tells`), pairs(flat(step.facts)), step.log ? h('pre', { class: 'log' }, step.log) : null)),
    run.steps.filter((step) => step.log && !(step.facts && Object.keys(step.facts).length)).map((step) => h('details', { key: `log ${step.name}`, class: 'model-card' }, h('summary', null, `Log of ${step.name}`), h('pre', { class: 'log' }, step.log))),
  ];
}

function trials(facts) {
  const tuning = facts.tuning || facts.tune || {};
  return Array.isArray(tuning) ? tuning : tuning.trials || [];
}

const scoreOf = (trial) => trial.score ?? trial.value ?? trial.metric ?? null;

function tuning(facts, width) {
  const list = trials(facts).map((trial, i) => ({ x: trial.number ?? trial.trial ?? i + 1, y: scoreOf(trial) }));
  return card('Score by trial', null, plot({ label: 'Score by trial', width, form: f.number, xForm: (x) => `trial ${x}`, series: [{ name: 'score', tone: 2, points: list }] }));
}

function trialTable(facts) {
  return table('Trials', [
    { name: 'Trial', num: true, of: ([trial, i]) => trial.number ?? trial.trial ?? i + 1 },
    { name: 'Score', num: true, of: ([trial]) => f.number(scoreOf(trial)) },
    { name: 'Parameters', cls: 'text', of: ([trial]) => Object.entries(trial.params || trial.parameters || trial.point || {}).map(([name, value]) => h('span', { class: 'metric' }, `${name} `, h('b', { class: 'num' }, typeof value === 'number' ? f.number(value) : String(value)))) },
  ], trials(facts).map((trial, i) => [trial, i]));
}

function short(facts) {
  if (!facts || typeof facts !== 'object') return '';
  return flat(facts).filter(([name, value]) => String(value).length < 40 && !/^(params|checked|data|span)\./.test(name)).slice(0, 5).map(([name, value]) => `${name} ${value}`).join(' · ');
}

// Facts as names and values, nested ones by their path.
function flat(facts, before = '', out = []) {
  for (const [name, value] of Object.entries(facts || {})) {
    if (out.length > 200) break;
    const own = before ? `${before}.${name}` : name;
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) flat(value, own, out);
    else if (Array.isArray(value)) out.push([own, value.length > 12 ? `${value.length} values` : JSON.stringify(value)]);
    else out.push([own, typeof value === 'number' ? f.number(value) : String(value)]);
  }
  return out;
}
