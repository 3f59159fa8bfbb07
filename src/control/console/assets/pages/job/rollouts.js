// The job's models: versions that score, their shares, and the tests of rollouts as they evolve.

import { h } from '../../lib/dom.js';
import { get, maybe, path } from '../../lib/api.js';
import * as f from '../../lib/format.js';
import { card, columns, plot } from '../../lib/plot.js';
import { bar, chip, empty, fact, section, table } from '../../lib/ui.js';
import { controls } from '../models.js';

export async function load({ id, ctx }, signal) {
  const [stats, models] = await Promise.all([
    ctx.slow.get('rollouts', 4000, () => maybe(get(`${path('jobs', id, 'rollouts')}`, signal), {})),
    ctx.slow.get('registry', 6000, () => maybe(get('/models', signal), {})),
  ]);
  return { records: stats.records || [], models: models.models || [] };
}

export function view({ job, status, own, ctx }) {
  const names = [...new Set([...(status ? status.models.map((one) => one.name) : []), ...own.records.map((one) => one.model)])];
  if (!names.length) return empty('The job has no models that can be told of', status ? 'Its file names none.' : 'Start it to see the versions that score.');
  return names.map((name) => {
    const model = status && status.models.find((one) => one.name === name);
    const registered = own.models.find((one) => (one.used_by || []).some((use) => use.job === job.id && use.model === name));
    const records = own.records.filter((one) => one.model === name);
    return section(name, null,
      model ? h('div', { class: 'facts' }, fact('Scored', f.count(model.scored)), fact('Not scored', f.count(model.unscored)), model.latency_ms ? fact('Latency', `${f.duration(model.latency_ms.p50)} · p90 ${f.duration(model.latency_ms.p90)} · p99 ${f.duration(model.latency_ms.p99)}`, 'From the cut of the tick to the score, over the last ten seconds') : null, registered ? fact('Registered as', h('a', { href: `#/models/${encodeURIComponent(registered.name)}` }, registered.name)) : null) : null,
      model ? routes(model) : null,
      registered ? h('div', { class: 'actions' }, controls(registered, ctx)) : null,
      records.length ? rollout(records, ctx) : h('p', { class: 'muted' }, 'No rollout has taken place. One begins when a version of the registered model gets the alias challenger.'));
  });
}

function routes(model) {
  return table(`Routes of ${model.name}`, [
    { name: 'Version', of: (route) => h('b', null, route.version) },
    { name: 'Role', of: (route) => chip(route.role, route.role === 'champion' ? 'good' : route.role === 'challenger' ? 'warn' : '') },
    { name: 'Traffic', of: (route) => (route.role === 'shadow' ? h('span', { class: 'muted' }, 'sees all, decides nothing') : h('span', { class: 'bar-with' }, bar(route.share, '', `share ${f.share(route.share)}`), h('span', { class: 'num' }, f.share(route.share)))) },
  ], model.routes);
}

/** A model's rollouts, the newest first. */
export function rollout(records, ctx) {
  const byRollout = new Map();
  for (const record of records) {
    const key = record.rollout || `${record.champion} and ${record.challenger}`;
    byRollout.set(key, [...(byRollout.get(key) || []), record]);
  }
  const { n, width } = columns(ctx.room(), 400);
  return [...byRollout].reverse().slice(0, 6).map(([name, list]) => {
    const tested = list.filter((one) => one.figures.lift !== null && one.figures.lift !== undefined);
    const last = list[list.length - 1];
    const x = (one) => f.millis(one.at);
    return h('div', { class: 'rollout' },
      h('h3', null, `Version ${last.challenger} against ${list[0].champion}`, chip(last.phase, /promot|done/.test(last.phase) ? 'good' : /back|fail/.test(last.phase) ? 'bad' : 'warn'), h('span', { class: 'note' }, `began ${f.moment(list[0].at)}`)),
      h('p', { class: 'muted' }, last.why),
      h('div', { class: `plots n${n}` },
        card('Lift in loss', 'challenger less champion; below 0 the challenger is better. The band holds at every look.', tested.length ? plot({
          label: 'Lift with its confidence sequence', width, height: 190, form: f.number, lines: [{ at: 0, name: 'no difference', tone: 'plain' }],
          series: [{ name: 'lift', tone: 1, points: tested.map((one) => ({ x: x(one), y: one.figures.lift, low: one.figures.low, high: one.figures.high, note: `${one.action}, p ${f.number(one.figures.p_value)}` })) }],
        }) : h('p', { class: 'no-plot muted' }, 'No labelled rows of both arms yet.')),
        card('Challenger’s share of rows', 'per cent', plot({ label: 'Share', width, height: 190, zero: true, most: 105, form: (v) => `${f.number(v)} %`, series: [{ name: 'share', tone: 0, kind: 'step', points: list.map((one) => ({ x: x(one), y: one.share, note: one.action })) }] }))),
      table(`Decisions of ${name}`, [
        { name: 'When', of: (one) => f.time(one.at) },
        { name: 'Action', of: (one) => [h('b', null, one.action), h('span', { class: 'sub' }, `${one.phase}, by ${one.by}`)] },
        { name: 'Why', cls: 'text why', of: (one) => one.why },
        { name: 'Share', num: true, of: (one) => `${f.number(one.share)} %` },
        { name: 'Lift', num: true, of: (one) => f.number(one.figures.lift) },
        { name: 'Interval', num: true, of: (one) => (one.figures.low === null || one.figures.low === undefined ? '–' : `${f.number(one.figures.low)} to ${f.number(one.figures.high)}`) },
        { name: 'p', num: true, of: (one) => f.number(one.figures.p_value) },
        { name: 'Rows', num: true, title: 'champion, challenger', of: (one) => `${f.brief(one.figures.rows[0])} / ${f.brief(one.figures.rows[1])}` },
        { name: 'Labelled', num: true, title: 'champion, challenger', of: (one) => `${f.brief(one.figures.labelled[0])} / ${f.brief(one.figures.labelled[1])}` },
        { name: 'Guards', num: true, title: 'p of the shares of rows; shift of scores in standard deviations; share of errors; p99', of: (one) => [one.figures.sample_ratio_p, one.figures.score_shift_sd, one.figures.error_rate, one.figures.latency_p99_ms].map(f.number).join(' · ') },
      ], [...list].reverse()));
  });
}
