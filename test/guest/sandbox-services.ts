import assert from 'node:assert/strict';
import type { IncidentReport, ProcessReport } from '../../src/report/schema.ts';
import type { TestGuest } from './harness.ts';
import { wholeText } from './whole-text.ts';

/** What makes systemd start a service in a sandbox. */
export const SANDBOX = 'PrivateTmp=yes\nProtectSystem=strict\nProtectHome=yes\nPrivateDevices=yes';

/** @param settings of the service: its sandbox; none if empty */
export function unitFile(command: string, settings: string): string {
  return `[Service]\nExecStart=${command}\nStateDirectory=%p\n${settings}\n[Install]\nWantedBy=multi-user.target\n`;
}

/** Services of a guest that panics under them. Each says in /var/lib/NAME what came of its connections. */
export class Services<Name extends string> {
  readonly names: readonly Name[];
  /** Their main processes before the panic. */
  readonly pids = new Map<Name, string>();
  readonly #guest: TestGuest;
  readonly #checked = new Map<Name, string>();

  constructor(guest: TestGuest, names: readonly Name[]) {
    this.#guest = guest;
    this.names = names;
  }

  /** Writes a unit of systemd, of these or another service. */
  async write(name: string, text: string): Promise<void> {
    await this.#guest.sh(`cat >/etc/systemd/system/${name}.service <<'EOF'\n${text}EOF`);
  }

  mainPid(name: Name): Promise<string> {
    return this.#guest.sh(`systemctl show --value --property=MainPID ${name}`);
  }

  /** What a service has written to a file, as soon as all of it is there. */
  said(file: string, seconds = 240): Promise<string> {
    return this.#guest.until(wholeText(`/var/lib/${file}`), seconds);
  }

  async notePids(): Promise<void> {
    for (const name of this.names) this.pids.set(name, await this.mainPid(name));
  }

  async protect(): Promise<void> {
    const units = this.names.map((name) => `--unit ${name}`).join(' ');
    await this.#guest.sh(`otherworld protect ${units}`, 300);
  }

  /** Asks what would become of some of them. */
  async check(names: readonly Name[]): Promise<void> {
    for (const name of names) {
      const { status, stdout } = await this.#guest.exec(['otherworld', 'check', name]);
      this.#checked.set(name, `${status} ${stdout.replaceAll(/\s+/g, ' ')}`);
    }
  }

  /** What a report says of the processes of one. */
  reported({ processes }: IncidentReport, name: Name): ProcessReport[] {
    return processes.filter(({ unit }) => unit === `${name}.service`);
  }

  /** One is back whole, in its unit, as `check` has said. */
  async assertBack(report: IncidentReport, name: Name): Promise<void> {
    const all = this.reported(report, name);
    assert.ok(all.length > 0);
    for (const { outcome, fate, reasons, losses, adopted } of all)
      assert.deepEqual(
        { outcome, fate, reasons, losses, adopted },
        {
          ...{ outcome: 'restored', fate: 'whole', reasons: [], losses: undefined },
          adopted: `${name}.service`,
        },
      );
    assert.equal(await this.mainPid(name), this.pids.get(name));
    // Status 4: it may depend on the moment.
    const back = new RegExp(`^[04] .*\\b${this.pids.get(name)} (python3|sh) `);
    assert.match(this.#checked.get(name) ?? '', back);
  }
}
