// What a client is told when its request is not done.

export class Refusal extends Error {
  readonly status: 400 | 401 | 404 | 409

  constructor(status: Refusal['status'], message: string) {
    super(message)
    this.status = status
  }
}
