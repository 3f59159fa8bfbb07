// Alerts of all jobs: those that fire, and those that were.

import { h } from '../lib/dom.js';
import { get, listOf, maybe, path } from '../lib/api.js';
import * as f from '../lib/format.js';
import { empty, head, section, state, table } from '../lib/ui.js';

export async function load(ctx, signal) {
  const jobs = listOf(await get('/jobs', signal), 'jobs');
  const running = jobs.filter((job) => job.state === 'RUNNING');
  const now = (await Promise.all(running.map(async (job) => {
    const status = await maybe(get(path('jobs', job.id, 'status'), signal));
    return (status ? status.alerts : []).map((alert) => ({ job, ...alert }));
  }))).flat();
  const past = await ctx.slow.get('past', 15000, async () => (await Promise.all(jobs.map(async (job) => {
    const told = await maybe(get(path('jobs', job.id, 'stats'), signal), {});
    return (told.models || []).flatMap((model) => model.alerts.map((alert) => ({ job, model: model.model, ...alert })));
  }))).flat());
  return { jobs, now, past };
}

export function view({ jobs, now, past }) {
  const ended = [...past].sort((a, b) => b.start - a.start);
  const worst = { critical: 0, warning: 1 };
  return [
    head('Alerts', now.length ? `${f.count(now.length)} firing` : 'none is firing'),
    now.length ? table('Firing', [
      { name: 'Alert', of: (alert) => h('b', null, alert.name) },
      { name: 'Severity', of: (alert) => state(alert.severity) },
      { name: 'Job', of: (alert) => alert.job.name },
      { name: 'Since', of: (alert) => f.time(alert.since) },
      { name: 'What it says', cls: 'text', of: (alert) => alert.text },
    ], [...now].sort((a, b) => (worst[a.severity] ?? 2) - (worst[b.severity] ?? 2)), { open: (alert) => `#/jobs/${encodeURIComponent(alert.job.id)}/quality` })
      : empty('No alert is firing', jobs.length ? 'Rules stand in a job’s file, under monitors: alerts.' : 'Alerts come from jobs with monitors; there is no job yet.'),
    ended.length ? section('All alerts', 'in event time, newest first', table('All alerts', [
      { name: 'Alert', of: (alert) => h('b', null, alert.name) },
      { name: 'Severity', of: (alert) => state(alert.severity) },
      { name: 'State', of: (alert) => (alert.end === null ? state('firing') : state('resolved')) },
      { name: 'Job', of: (alert) => [alert.job.name, h('span', { class: 'sub' }, alert.model)] },
      { name: 'About', cls: 'text', of: (alert) => alert.about },
      { name: 'From', of: (alert) => f.time(alert.start) },
      { name: 'For', num: true, of: (alert) => (alert.end === null ? '' : f.duration((alert.end - alert.start) / 1000)) },
      { name: 'Value', num: true, of: (alert) => f.inUnit(alert.value, alert.unit) },
      { name: 'Threshold', num: true, of: (alert) => f.inUnit(alert.threshold, alert.unit) },
      { name: 'What it says', cls: 'text', of: (alert) => alert.message },
    ], ended.slice(0, 300), { open: (alert) => `#/jobs/${encodeURIComponent(alert.job.id)}/quality` })) : null,
  ];
}
