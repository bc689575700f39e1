/** What is known of a kernel without its dump: taken while the system is healthy. */
export interface Profile {
  readonly release: string;
  /** GNU build id of the kernel image, hexadecimal: must be the dump's. */
  readonly buildId: string;
}
