import type { OpenFileCommon, PathFile } from './open-file.ts';

/** `struct ktermios` without the speeds, which c_cflag holds. */
export interface Termios {
  readonly iflag: number;
  readonly oflag: number;
  readonly cflag: number;
  readonly lflag: number;
  readonly line: number;
  /** 19 control characters. */
  readonly cc: Uint8Array;
}

export interface WindowSize {
  readonly rows: number;
  readonly columns: number;
  readonly xPixels: number;
  readonly yPixels: number;
}

/** What a terminal device is. `current` is /dev/tty: the controlling terminal, whichever it is. */
export type TerminalKind = 'pty-master' | 'pty-slave' | 'console' | 'virtual-console' | 'serial' | 'current';

/** A `tty_struct` (each end of a pseudo-terminal has one). */
export interface Terminal {
  readonly id: number;
  readonly kind: TerminalKind;
  /** N of /dev/pts/N; undefined unless it is a pseudo-terminal. */
  readonly ptyIndex: number | undefined;
  /** TIOCSPTLCK of a master. */
  readonly locked: boolean;
  readonly exclusive: boolean;
  readonly packetMode: boolean;
  /** Session and foreground process group of the terminal; 0 for none. */
  readonly session: number;
  readonly foregroundGroup: number;
  /** Numbers of the device and of the file system that its node is on, as stat(2) gives them. */
  readonly rdev: number;
  readonly device: number;
  readonly uid: number;
  readonly gid: number;
  /** Undefined for a terminal that has been hung up. */
  readonly settings: TerminalSettings | undefined;
  /** Bytes that a read from this end would have given; what can be put back. */
  readonly unread: Uint8Array;
}

export interface TerminalSettings {
  readonly termios: Termios;
  readonly lockedTermios: Termios;
  readonly windowSize: WindowSize;
}

/** An open file on a terminal. */
export interface TerminalFile extends OpenFileCommon {
  readonly type: 'terminal';
  readonly terminalId: number;
  /** A file of its own, by which the device is opened again. */
  readonly pathFile: PathFile;
}
