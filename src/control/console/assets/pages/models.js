// Registered models: versions, aliases, metrics, history, card; promote, roll back, hold.

import { h } from '../lib/dom.js';
import { get, maybe, path, post } from '../lib/api.js';
import * as f from '../lib/format.js';
import { markdown } from '../lib/markdown.js';
import { button, chip, confirm, empty, fact, field, head, section, table } from '../lib/ui.js';

export async function load(ctx, signal) {
  const [, name] = ctx.parts;
  if (!name) return get('/models', signal);
  const model = await get(at(name, ctx.query.get('registry')), signal);
  const chosen = version(model, ctx);
  const card = chosen && Object.keys(chosen.files || {}).includes('card.md')
    ? await ctx.slow.get(`card ${chosen.number}`, 600000, () => maybe(get(`${path('models', name, 'versions', String(chosen.number), 'files', 'card.md')}${registry(model)}`, signal))) : null;
  return { model, card };
}

const at = (name, place) => `${path('models', name)}${place ? `?registry=${encodeURIComponent(place)}` : ''}`;
const registry = (model) => (model.registry ? `?registry=${encodeURIComponent(model.registry)}` : '');
const aliasesOf = (model, number) => Object.entries(model.aliases).filter(([, has]) => has === number).map(([alias]) => alias);

function version(model, ctx) {
  const wanted = Number(ctx.parts[2] || 0);
  return model.versions.find((one) => one.number === wanted) || model.versions.find((one) => one.number === model.aliases.champion) || model.versions[model.versions.length - 1];
}

export function view(data, ctx) {
  if (ctx.parts[1]) return one(data, ctx);
  const { models = [], files = [], problems = [] } = data;
  const leads = (model) => `#/models/${encodeURIComponent(model.name)}${model.registry ? `?registry=${encodeURIComponent(model.registry)}` : ''}`;
  return [
    head('Models', `${f.count(models.length)} registered`),
    problems.map((one) => h('div', { class: 'remark', role: 'alert' }, h('div', null, h('strong', null, one.registry), h('p', null, one.why)))),
    models.length ? table('Registered models', [
      { name: 'Model', of: (model) => [h('b', null, model.name), models.some((other) => other !== model && other.name === model.name) ? h('span', { class: 'sub' }, model.registry) : null] },
      { name: 'Champion', num: true, of: (model) => model.aliases.champion ?? '–' },
      { name: 'Challenger', num: true, of: (model) => model.aliases.challenger ?? '–' },
      { name: 'Versions', num: true, of: (model) => f.count(model.versions.length) },
      { name: 'Metrics of the champion', cls: 'text', of: (model) => metrics(model.versions.find((one) => one.number === model.aliases.champion)) },
      { name: 'Scores in', of: (model) => uses(model) },
      { name: 'Newest', of: (model) => f.ago(model.versions.length ? model.versions[model.versions.length - 1].at : null) },
    ], models, { key: (model) => `${model.registry} ${model.name}`, open: leads })
      : empty('No model is registered', 'A job may score with a model’s file. A registered model has versions, can be retrained, and rolled out step by step:', h('pre', null, 'tidemill models register fraud model.onnx --alias champion')),
    files.length ? section('Models from files', 'named in a job’s file, without versions', table('Models from files', [
      { name: 'Model', of: (one) => h('b', null, one.model) }, { name: 'Job', of: (one) => h('a', { href: `#/jobs/${encodeURIComponent(one.job)}/rollouts` }, one.job) }, { name: 'File', cls: 'path', of: (one) => one.file },
    ], files)) : null,
  ];
}

const metrics = (one) => (one && Object.keys(one.metrics || {}).length ? Object.entries(one.metrics).slice(0, 4).map(([name, value]) => h('span', { class: 'metric' }, `${name} `, h('b', { class: 'num' }, f.number(value)))) : h('span', { class: 'muted' }, '–'));
const uses = (model) => ((model.used_by || []).length ? model.used_by.map((use, i) => [i ? ', ' : '', h('a', { href: `#/jobs/${encodeURIComponent(use.job)}/rollouts` }, use.job)]) : h('span', { class: 'muted' }, 'no job here'));

/** The buttons that a model has. */
export function controls(model, ctx) {
  const done = () => ctx.refresh();
  const { champion, challenger } = model.aliases;
  return [
    challenger ? button('Promote challenger', () => change(model, 'promote', challenger, done), { kind: 'small' }) : null,
    champion ? button('Roll back', () => change(model, 'rollback', null, done), { kind: 'small' }) : null,
    challenger ? button('Hold', () => change(model, 'hold', null, done), { kind: 'small', title: 'Go no further with the challenger for now' }) : null,
    challenger ? button('Resume', () => change(model, 'resume', null, done), { kind: 'small' }) : null,
  ];
}

const WORDS = {
  promote: ['Promote', 'It becomes the champion. Jobs that score with this model take it at their next tick.'],
  rollback: ['Roll back', 'The version that was champion before becomes it again.'],
  hold: ['Hold', 'The challenger’s share stays what it is; guards go on and may still take it back.'],
  resume: ['Resume', 'The rollout goes on.'],
};

function change(model, what, number, done) {
  const [title, text] = WORDS[what];
  confirm({
    title: `${title} ${number ? `version ${number} of ` : ''}${model.name}?`,
    text: `${text}${(model.used_by || []).length ? ` It scores in ${model.used_by.map((use) => use.job).join(', ')}.` : ''}`,
    fields: [field('Why', h('input', { name: 'why', type: 'text', maxlength: 500 }), 'For the history.')],
    action: title, danger: what === 'rollback' || what === 'promote',
    act: async (form) => {
      const body = { why: form.get('why').trim() };
      if (model.registry) body.registry = model.registry;
      if (number) body.version = number;
      // What the page showed must still be so.
      if ((what === 'promote' || what === 'rollback') && model.aliases.champion) body.expect = model.aliases.champion;
      const outcome = await post(path('models', model.name, what), body);
      done();
      return (outcome && outcome.text) || `${title}: done`;
    },
  });
}

function one({ model, card }, ctx) {
  const chosen = version(model, ctx);
  const base = `#/models/${encodeURIComponent(model.name)}`;
  const query = registry(model);
  const champion = model.versions.find((own) => own.number === model.aliases.champion);
  const names = [...new Set(model.versions.flatMap((own) => Object.keys(own.metrics || {})))].slice(0, 6);
  return [
    head(model.name, [fact('Champion', model.aliases.champion ?? 'none'), fact('Challenger', model.aliases.challenger ?? 'none'), fact('Versions', f.count(model.versions.length)), fact('Scores in', uses(model)), fact('Registry', model.registry)],
      h('a', { class: 'back', href: '#/models' }, '‹ Models'), controls(model, ctx)),
    section('Versions', null, table('Versions', [
      { name: 'Version', num: true, of: (own) => own.number },
      { name: 'Is', of: (own) => aliasesOf(model, own.number).map((alias) => chip(alias, alias === 'champion' ? 'good' : alias === 'challenger' ? 'warn' : '')) },
      ...names.map((name) => ({ name, num: true, of: (own) => [f.number((own.metrics || {})[name]), delta(own, champion, name)] })),
      { name: 'Registered', of: (own) => f.time(own.at) },
      { name: 'By', of: (own) => own.who },
      { name: 'Why', cls: 'text', of: (own) => own.why },
      { name: '', cls: 'actions-cell', of: (own) => (own.number !== model.aliases.champion ? button('Promote', () => change(model, 'promote', own.number, () => ctx.refresh()), { kind: 'small' }) : null) },
    ], [...model.versions].reverse(), { key: (own) => own.number, open: (own) => `${base}/${own.number}${query}`, rowClass: (own) => (own === chosen ? 'chosen' : null) })),
    chosen ? section(`Version ${chosen.number}`, null,
      h('div', { class: 'facts' }, fact('SHA-256', h('code', { title: chosen.artifact.hash }, chosen.artifact.hash.slice(0, 12))), fact('File', f.bytes(chosen.artifact.bytes)),
        Object.entries(chosen.data || {}).map(([name, value]) => fact(`Data: ${name}`, `version ${value}`)), Object.entries(chosen.params || {}).slice(0, 12).map(([name, value]) => fact(name, value)), Object.entries(chosen.tags || {}).map(([name, value]) => fact(name, value))),
      h('div', { class: 'two' },
        h('div', null, h('h3', null, 'Takes'), h('ul', { class: 'plain-list' }, (chosen.signature.inputs || []).map(io))),
        h('div', null, h('h3', null, 'Gives'), h('ul', { class: 'plain-list' }, (chosen.signature.outputs || []).map(io)))),
      card ? h('details', { class: 'model-card' }, h('summary', null, 'Model card'), markdown(card)) : h('p', { class: 'muted' }, 'It has no model card: it was not made by `tidemill train`.')) : null,
    section('History', null, table('History', [
      { name: 'Entry', num: true, of: (entry) => f.count(entry.number) }, { name: 'When', of: (entry) => f.time(entry.at) },
      { name: 'What', of: (entry) => h('b', null, entry.what) }, { name: 'By', of: (entry) => entry.who },
      { name: 'Why', cls: 'text', of: (entry) => [entry.why, entry.numbers ? h('details', { class: 'numbers' }, h('summary', null, 'Numbers'), h('code', { class: 'sub' }, JSON.stringify(entry.numbers, null, 1))) : null] },
    ], [...(model.history || [])].reverse(), { key: (entry) => entry.number })),
  ];
}

const io = (one) => h('li', null, h('code', null, `${one.name} ${one.element} [${['N', ...(one.dims || ['?'])].join(', ')}]`));

function delta(own, champion, name) {
  if (!champion || own === champion) return null;
  const [is, was] = [(own.metrics || {})[name], (champion.metrics || {})[name]];
  if (is === undefined || was === undefined || is === was) return null;
  return h('span', { class: 'sub' }, `${is > was ? '+' : '−'}${f.number(Math.abs(is - was))}`);
}

