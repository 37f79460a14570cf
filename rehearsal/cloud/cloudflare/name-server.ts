// The zone's name server, over UDP and TCP: the wire format and its limits. What is answered is zone-answers.ts.
import { createSocket, type Socket as DatagramSocket } from 'node:dgram'
import { once } from 'node:events'
import { type AddressInfo, createServer, isIP, type Server, type Socket } from 'node:net'
import { pipeline } from 'node:stream/promises'
import {
  type Answer,
  AUTHORITATIVE_ANSWER,
  CHECKING_DISABLED,
  type DecodedPacket,
  DNSSEC_OK,
  decode,
  encode,
  type OptAnswer,
  RECURSION_DESIRED,
  TRUNCATED_RESPONSE,
} from 'dns-packet'
import { answerFrom, isWithin, RCODE, type Reply, type Zone } from './zone-answers.ts'

export type NameServer = { host: string; port: number; close: () => Promise<void> }

const HOST = '127.0.0.1'

/** Bytes that a datagram may have: without EDNS (RFC 1035), and at most with it, as all large operators do. */
const PLAIN_DATAGRAM = 512
const LARGEST_DATAGRAM = 1_232
const LARGEST_MESSAGE = 65_535

/** Milliseconds for which a TCP connection may be silent. */
const IDLE = 10_000
const MOST_CONNECTIONS = 200

/**
 * Answers for the zone, and refuses all else, on a free port of 127.0.0.1, the same one for UDP and TCP.
 * @throws when one of zone.hosts is not in the zone, or is given something that is no address
 */
export async function startNameServer(zone: Zone): Promise<NameServer> {
  for (const [name, addresses] of zone.hosts) {
    const wrong = addresses.find((address) => isIP(address) === 0)
    if (!isWithin(zone, name) || name !== name.toLowerCase() || wrong !== undefined)
      throw new Error(
        `the name server was given ${name}: ${addresses.join(', ')}, expected lower-case names in ${zone.name}, and IP addresses`,
      )
  }
  const { server, datagrams } = await listen()
  server.on('connection', (socket) => converse(zone, socket))
  server.on('error', console.error)
  datagrams.on('error', console.error)
  datagrams.on('message', (query, { port, address }) => {
    const answer = respond(zone, query, 'udp')
    if (answer) datagrams.send(answer, port, address, () => {}) // who does not get it asks again
  })

  const connections = new Set<Socket>()
  server.on('connection', (socket) => {
    connections.add(socket)
    socket.once('close', () => connections.delete(socket))
  })
  const close = async () => {
    const closed = Promise.all([once(server, 'close'), once(datagrams, 'close')])
    server.close()
    datagrams.close()
    for (const socket of connections) socket.destroy()
    await closed
  }
  return { host: HOST, port: datagrams.address().port, close }
}

/** A free port of one protocol may be taken for the other. */
async function listen(): Promise<{ server: Server; datagrams: DatagramSocket }> {
  for (let attempt = 1; ; attempt++) {
    const server = createServer({ allowHalfOpen: true })
    server.maxConnections = MOST_CONNECTIONS
    server.listen(0, HOST)
    await once(server, 'listening')
    const datagrams = createSocket('udp4')
    try {
      datagrams.bind((server.address() as AddressInfo).port, HOST)
      await once(datagrams, 'listening')
      return { server, datagrams }
    } catch (error) {
      datagrams.close()
      server.close()
      if (attempt === 10) throw error
    }
  }
}

function converse(zone: Zone, socket: Socket): void {
  socket.setTimeout(IDLE, () => socket.destroy())
  pipeline(socket, (source) => messages(zone, source), socket).catch(() => {}) // a client may go away at any time
}

/** Over TCP each message has its length before it, and a client may send several before it reads. */
async function* messages(zone: Zone, source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let received: Buffer = Buffer.alloc(0)
  for await (const chunk of source) {
    received = Buffer.concat([received, chunk])
    while (received.length >= 2 && received.length >= 2 + received.readUInt16BE()) {
      const end = 2 + received.readUInt16BE()
      const answer = respond(zone, received.subarray(2, end), 'tcp')
      if (!answer) return
      const length = Buffer.alloc(2)
      length.writeUInt16BE(answer.length)
      yield Buffer.concat([length, answer])
      received = received.subarray(end)
    }
  }
}

/** @returns the answer; undefined for what is no query, since an answer to an answer could go on for ever */
function respond(zone: Zone, query: Buffer, transport: 'udp' | 'tcp'): Buffer | undefined {
  if (query.length < 12 || query.readUInt8(2) & 0x80) return undefined
  try {
    return whole(zone, query, transport)
  } catch (error) {
    console.error(error)
    return headerOnly(query, RCODE.serverFailure)
  }
}

function whole(zone: Zone, query: Buffer, transport: 'udp' | 'tcp'): Buffer {
  const opcode = (query.readUInt8(2) >> 3) & 15
  if (opcode !== 0) return headerOnly(query, RCODE.notImplemented)
  const packet = read(query)
  if (!packet) return headerOnly(query, RCODE.formatError)

  const extension = packet.additionals?.find((each): each is OptAnswer => each.type === 'OPT')
  const isUnknownVersion = extension !== undefined && extension.ednsVersion > 0
  const { rcode, answers, authorities } = isUnknownVersion ? NOTHING : decide(zone, packet)
  const isOurs = !isUnknownVersion && rcode !== RCODE.refused
  const kept = (packet.flags ?? 0) & (RECURSION_DESIRED | CHECKING_DISABLED)
  const response = {
    type: 'response' as const,
    id: packet.id,
    flags: kept | (isOurs ? AUTHORITATIVE_ANSWER : 0) | rcode,
    questions: packet.questions,
    additionals: extension ? [extensionOf(extension, isUnknownVersion)] : [],
  }
  const offered = extension ? Math.max(PLAIN_DATAGRAM, extension.udpPayloadSize) : PLAIN_DATAGRAM
  const limit = transport === 'tcp' ? LARGEST_MESSAGE : Math.min(offered, LARGEST_DATAGRAM)
  const encoded = encode({ ...response, answers, authorities })
  // Who is told only that there is more asks again, over TCP.
  return encoded.length <= limit ? encoded : encode({ ...response, flags: response.flags | TRUNCATED_RESPONSE })
}

const NOTHING: Reply = { rcode: RCODE.noError, answers: [], authorities: [] }

function decide(zone: Zone, { questions = [] }: DecodedPacket): Reply {
  const [question] = questions
  const isForUs = question && isWithin(zone, question.name) && question.class === 'IN'
  const isTransfer = question?.type === 'AXFR' || question?.type === 'IXFR'
  return isForUs && !isTransfer ? answerFrom(zone, question) : { ...NOTHING, rcode: RCODE.refused }
}

/** @returns undefined for what cannot be read, or whose question would not be said back byte by byte */
function read(query: Buffer): DecodedPacket | undefined {
  let packet: DecodedPacket
  try {
    packet = decode(query)
  } catch {
    return undefined
  }
  if (packet.questions?.length !== 1) return undefined
  const said = encode({ questions: packet.questions }).subarray(12)
  return said.equals(query.subarray(12, 12 + said.length)) ? packet : undefined
}

/** EDNS(0) is all that there is, without options; a later version is told so (BADVERS, whose upper bits are 1). */
const extensionOf = ({ flags }: OptAnswer, isUnknownVersion: boolean): Answer => ({
  type: 'OPT',
  name: '.',
  udpPayloadSize: LARGEST_DATAGRAM,
  extendedRcode: isUnknownVersion ? 1 : 0,
  ednsVersion: 0,
  flags: flags & DNSSEC_OK,
  flag_do: (flags & DNSSEC_OK) !== 0,
  options: [],
})

function headerOnly(query: Buffer, rcode: number): Buffer {
  const header = Buffer.alloc(12)
  query.copy(header, 0, 0, 3)
  header.writeUInt8((query.readUInt8(2) & 0x79) | 0x80, 2) // an answer to the same operation, recursion wanted or not
  header.writeUInt8(rcode, 3)
  return header
}
