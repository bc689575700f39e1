import assert from 'node:assert/strict';
import { join } from 'node:path';
import { buildOrbits, knownOrbits } from '../../../lab/demo/programs.ts';
import { stderrProgress } from '../../../lab/progress.ts';
import type { TestGuest } from '../harness.ts';
import { quote } from '../shell.ts';

const TRIAL_STEPS = 2000;
/** What a thread alone on a CPU takes. */
const COMPUTING_SECONDS = 40;
const CHECKPOINT_SECONDS = 10;
const CHECKPOINTS = '/dev/shm/checkpoints';

/** Computations in the guest, and how many threads each has. None of them may be in anybody's way. */
const THREADS = { checkpointed: 2, protected: 2, tmux: 1 } as const;
type Name = keyof typeof THREADS;

/**
 * Long computations whose results are known, of which one is not protected and has a checkpoint in memory.
 */
export class Computations {
  readonly #guest: TestGuest;
  readonly pids = new Map<'checkpointed' | 'protected', number>();
  #steps = 0;
  #program = '';

  private constructor(guest: TestGuest) {
    this.#guest = guest;
  }

  /** Starts those that wait for their number of steps, and a shell in tmux. */
  static async start(guest: TestGuest): Promise<Computations> {
    const computations = new Computations(guest);
    computations.#program = await buildOrbits(stderrProgress());
    await guest.copyIn(computations.#program, '/usr/local/bin/orbits');
    for (const script of ['keep.sh', 'go-on.sh'])
      await guest.copyIn(join(import.meta.dirname, '../../../examples/checkpoint', script), `/srv/${script}`);
    for (const name of ['checkpointed', 'protected'] as const) {
      await guest.sh(`mkfifo /srv/${name}.steps`);
      const run = `read steps </srv/${name}.steps; exec nice -n 19 orbits $steps /srv/${name}.result ${THREADS[name]}`;
      computations.pids.set(name, await guest.background(run));
    }
    await guest.sh("LANG=C.UTF-8 tmux -f /dev/null new-session -d -s work -x 80 -y 20 'exec bash --norc'");
    await computations.#type("PS1='> '; word=unsaved; cd /usr/share/doc");
    await computations.#type('echo $((6 * 7)) $word');
    await guest.until("tmux capture-pane -p -t work | grep -q '^42 unsaved$'", 60);
    return computations;
  }

  #type(line: string): Promise<string> {
    return this.#guest.sh(`tmux send-keys -t work -l ${quote(line)}; tmux send-keys -t work Enter`);
  }

  /** What the terminal shows. */
  screen(): Promise<string> {
    return this.#guest.sh('tmux capture-pane -p -t work');
  }

  /** Lets all of them compute, and waits until one has a checkpoint. */
  async compute(): Promise<void> {
    const trial = `s=$(date +%s%N); orbits ${TRIAL_STEPS} /srv/trial; echo $(($(date +%s%N) - s))`;
    const nanoseconds = Number(await this.#guest.sh(trial));
    this.#steps = Math.ceil((COMPUTING_SECONDS * 1e9 * TRIAL_STEPS) / nanoseconds);
    await this.#type(`nice -n 19 orbits ${this.#steps} /srv/tmux.result & `);
    for (const name of this.pids.keys()) await this.#guest.sh(`echo ${this.#steps} >/srv/${name}.steps`);
    const pid = this.pids.get('checkpointed');
    await this.#guest.until(`grep -qx orbits /proc/${pid}/comm`, 30);
    await this.#guest.background(
      `exec sh /srv/keep.sh ${pid} ${CHECKPOINTS} ${CHECKPOINT_SECONDS} >/srv/keep.log 2>&1`,
    );
    await this.#guest.until(`test -e ${CHECKPOINTS}/last/inventory.img || ! cat /srv/keep.log`, 120);
  }

  /** Those that have a result. */
  async done(): Promise<Name[]> {
    const found = await this.#guest.sh(
      'cd /srv; for f in *.result; do [ ! -s $f ] || basename $f .result; done',
    );
    return found.split('\n').filter((name): name is Name => name in THREADS);
  }

  /** Goes on from the checkpoint, as nothing else is left of the process. */
  async goOn(): Promise<void> {
    const pid = this.pids.get('checkpointed');
    await this.#guest.sh(
      `test ! -e /proc/${pid}; sh /srv/go-on.sh ${CHECKPOINTS}; grep -x orbits /proc/${pid}/comm`,
    );
  }

  /** The result is the known one, to the last bit. */
  async isRight(name: Name): Promise<void> {
    const result = await this.#guest.until(`grep . /srv/${name}.result`, COMPUTING_SECONDS * 5);
    assert.equal(result, await knownOrbits(this.#program, this.#steps, THREADS[name]));
  }

  /** The shell has its variables and its history of what it has started. */
  async shellGoesOn(): Promise<void> {
    await this.#type('clear; echo $word $PWD; jobs');
    await this.#guest.until("tmux capture-pane -p -t work | grep -q '^unsaved /usr/share/doc$'", 60);
    assert.match(await this.screen(), /^\[1\].*(Running|Done) .*orbits/m);
  }
}
