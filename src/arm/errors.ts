/** The system cannot be armed; the message says what is missing and what to change. */
export class ArmError extends Error {
  override readonly name = 'ArmError';
}
