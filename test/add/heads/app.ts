import type { AddressInfo, Socket } from 'node:net'
import { appOf, protocols } from './cases.js'

// Apps without this library, in a process of their own: some of their heads are exceptions that nobody catches.

const sockets = new Set<Socket>()
process.on('uncaughtException', () => { for (const socket of sockets) socket.destroy() })
process.on('disconnect', () => process.exit())

const ports = await Promise.all(protocols.map(async protocol => {
  const app = appOf(protocol)
  for (const event of ['connection', 'secureConnection']) {
    app.server.on(event, (socket: Socket) => { sockets.add(socket) })
  }
  await app.listen({ port: 0, host: '127.0.0.1' })
  return (app.server.address() as AddressInfo).port
}))
process.send!(ports)
