// What several parts of a job's page use.

import { empty } from '../../lib/ui.js';

export { pressureBar } from '../jobs.js';

/** What stands where a part needs a job that runs. */
export function asleep(job) {
  return empty(`The job is ${String(job.state).toLowerCase()}`, job.state === 'STARTING' ? 'This appears when its process answers.' : 'This is told by a job that runs. Start it to see it.');
}
