// amqplib (npm) does one of the things of test_amqp_node.py: node amqp_js.js MODULE URL WHAT
'use strict'

const assert = require('node:assert')
const { once } = require('node:events')

const [module_, url, what] = process.argv.slice(2)
const amqp = require(module_)

const confirmed = async (channel, exchange, key, body, options) =>
  new Promise((resolve, reject) => channel.publish(exchange, key, Buffer.from(body), options, (e) => (e ? reject(e) : resolve())))

const does = {
  // A worker acknowledges one by one what was published with confirms; another queue is told of it.
  async work (connection) {
    const giver = await connection.createConfirmChannel()
    const { queue } = await giver.assertQueue('', { exclusive: true, durable: false })
    for (let n = 0; n < 50; n++) giver.sendToQueue(queue, Buffer.from(`${n}`), { persistent: true })
    await giver.waitForConfirms()
    const worker = await connection.createChannel()
    await worker.prefetch(5)
    const got = []
    await new Promise((resolve) => worker.consume(queue, (message) => {
      got.push(Number(message.content))
      worker.ack(message)
      if (got.length === 50) resolve()
    }))
    assert.deepStrictEqual(got, [...Array(50).keys()])
    return `worked ${got.length}`
  },

  // Properties and headers of every type come back as they were.
  async properties (connection) {
    const channel = await connection.createConfirmChannel()
    const { queue } = await channel.assertQueue('', { exclusive: true, durable: false })
    const headers = {
      text: 'ü', small: 1, large: 2 ** 40, negative: -5, fraction: 1.5, yes: true, no: false, nothing: null,
      list: [1, 'two', { three: [3] }], bytes: Buffer.from([0, 255]), when: { '!': 'timestamp', value: 1700000000 },
    }
    const options = {
      contentType: 'application/json', contentEncoding: 'gzip', headers, persistent: true, priority: 7, correlationId: 'c',
      replyTo: 'r', expiration: '600000', messageId: 'm', timestamp: 1700000000, type: 't', userId: 'guest', appId: 'a',
    }
    await confirmed(channel, '', queue, 'x'.repeat(300000), options)
    const message = await channel.get(queue, { noAck: true })
    assert.strictEqual(message.content.length, 300000)
    assert.deepStrictEqual(message.properties.headers, headers)
    for (const name of ['contentType', 'contentEncoding', 'priority', 'correlationId', 'replyTo', 'expiration', 'messageId', 'timestamp', 'type', 'userId', 'appId']) {
      assert.strictEqual(message.properties[name], options[name], name)
    }
    assert.strictEqual(message.properties.deliveryMode, 2)
    return 'properties kept'
  },

  // What comes back, is refused, or has no place: returns, nacks, and channels that are closed.
  async refusals (connection) {
    const channel = await connection.createConfirmChannel()
    const back = once(channel, 'return')
    await confirmed(channel, '', 'nowhere', 'lost', { mandatory: true })
    const [message] = await back
    assert.strictEqual(message.fields.replyText, 'NO_ROUTE')
    const full = await channel.assertQueue('', { exclusive: true, maxLength: 1, arguments: { 'x-overflow': 'reject-publish' } })
    await confirmed(channel, '', full.queue, '1')
    await assert.rejects(confirmed(channel, '', full.queue, '2'))
    const closing = await connection.createChannel()
    closing.on('error', () => {})
    await assert.rejects(closing.checkQueue('nowhere'), /404 \(NOT-FOUND\) with message "NOT_FOUND - no queue 'nowhere' in vhost '\/'"/)
    return 'refused'
  },

  // Direct answers, and a topic exchange in between.
  async answers (connection) {
    const server = await connection.createChannel()
    const { queue } = await server.assertQueue('', { exclusive: true, durable: false })
    await server.bindQueue(queue, 'amq.topic', 'ask.#')
    await server.consume(queue, (message) => {
      const { replyTo, correlationId } = message.properties
      server.sendToQueue(replyTo, Buffer.from(`${message.content}!`), { correlationId })
    }, { noAck: true })
    const client = await connection.createChannel()
    const answer = new Promise((resolve) => client.consume('amq.rabbitmq.reply-to', resolve, { noAck: true }).then(() =>
      client.publish('amq.topic', 'ask.something', Buffer.from('heard'), { replyTo: 'amq.rabbitmq.reply-to', correlationId: '1' })))
    const message = await answer
    assert.strictEqual(message.properties.correlationId, '1')
    return `answered ${message.content}`
  },

  // A consumer is told that its queue has gone; one channel's end is not another's.
  async gone (connection) {
    const name = `node-${process.pid}-${Date.now()}`
    const channel = await connection.createChannel()
    await channel.assertQueue(name)
    const told = new Promise((resolve) => channel.consume(name, resolve))
    const other = await connection.createChannel()
    await other.deleteQueue(name)
    assert.strictEqual(await told, null)
    await channel.close()
    await other.assertExchange(name, 'headers', { autoDelete: true })
    await other.deleteExchange(name)
    return 'told'
  },
}

async function main () {
  const connection = await amqp.connect(url)
  console.log(await does[what](connection))
  await connection.close()
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
