-- The journal's format, version 2 (docs/journal.md says what everything means).
--
-- Everything in here may be read while the broker runs (open it read-only); only the broker writes.
-- Times are milliseconds since 1970. All names are UTF-8. Keys have AMQP's spelling: words between dots.

PRAGMA application_id = 0x54474A4C;  -- "TGJL"
PRAGMA user_version = 2;

-- clean: 1 if the last broker closed the journal in order. next_queue: greater than every id of a queue or
-- lane ever given.
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO meta VALUES ('clean', 0), ('next_queue', 1);

-- Definitions. `spec`, `arguments` and `options` are JSON; what is left out has its default. Bytes in JSON are
-- {"$bytes": base64}.
CREATE TABLE exchange (
  vhost TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, spec TEXT NOT NULL,
  PRIMARY KEY (vhost, name)
) WITHOUT ROWID;

-- The id of a queue is never used again. A queue with priorities has ids up to id + max_priority (in spec), one per priority: its
-- lanes. Messages are kept per lane; only the lowest id has a row here.
CREATE TABLE queue (
  id INTEGER PRIMARY KEY, vhost TEXT NOT NULL, name TEXT NOT NULL, spec TEXT NOT NULL,
  UNIQUE (vhost, name)
);

CREATE TABLE binding (
  vhost TEXT NOT NULL, source TEXT NOT NULL, to_exchange INTEGER NOT NULL, destination TEXT NOT NULL, key TEXT NOT NULL,
  arguments TEXT NOT NULL, options TEXT NOT NULL,
  PRIMARY KEY (vhost, source, to_exchange, destination, key, arguments)
) WITHOUT ROWID;

-- The last value of a key. address: of the message, as in segments. crc: CRC-32 of address, wire and body, in this order.
CREATE TABLE retained (
  vhost TEXT NOT NULL, exchange TEXT NOT NULL, key TEXT NOT NULL,
  persistent INTEGER NOT NULL, priority INTEGER NOT NULL, expires_at_ms INTEGER NOT NULL, wire_tag TEXT NOT NULL,
  crc INTEGER NOT NULL, address BLOB NOT NULL, wire BLOB NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (vhost, exchange, key)
);

-- What front-ends keep: sessions, sequence marks, packet identifiers.
CREATE TABLE state (
  namespace TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY (namespace, key)
) WITHOUT ROWID;

-- Messages that are to be published at a time. Columns as in retained.
CREATE TABLE scheduled (
  id INTEGER PRIMARY KEY, due_ms INTEGER NOT NULL, vhost TEXT NOT NULL, exchange TEXT NOT NULL, key TEXT NOT NULL,
  priority INTEGER NOT NULL, expires_at_ms INTEGER NOT NULL, wire_tag TEXT NOT NULL,
  crc INTEGER NOT NULL, address BLOB NOT NULL, wire BLOB NOT NULL, body BLOB NOT NULL
);

-- Messages: n of them, with `refs` references to queues, in columns (see segment.py). idx stands before body, so that reading
-- idx never touches the pages of the body. crc: CRC-32 of idx, then body. A segment is written once and deleted whole.
-- committed_ms: of its oldest message, where compaction has moved messages from other segments to it.
CREATE TABLE seg (
  id INTEGER PRIMARY KEY, n INTEGER NOT NULL, refs INTEGER NOT NULL, crc INTEGER NOT NULL, committed_ms INTEGER NOT NULL,
  idx BLOB NOT NULL, body BLOB NOT NULL
);

-- Who has what where: a row per queue and segment as long as one of its references there is unsettled; a segment lives as long
-- as it has a row. Positions are those of the references when the segment was written. priority: 0.
CREATE TABLE segq (
  queue INTEGER NOT NULL, priority INTEGER NOT NULL, first_position INTEGER NOT NULL, seg INTEGER NOT NULL,
  last_position INTEGER NOT NULL, live INTEGER NOT NULL, live_bytes INTEGER NOT NULL,
  PRIMARY KEY (queue, priority, first_position, seg)
) WITHOUT ROWID;
CREATE INDEX segq_seg ON segq (seg);

-- One bit per reference of a segment, lowest first: settled. No row: none is. The bits of a queue without a row in segq mean nothing.
CREATE TABLE segack (seg INTEGER PRIMARY KEY, bits BLOB NOT NULL);

-- How often a reference was delivered before it came back, and when it is due again (0: at once).
CREATE TABLE redelivered (
  seg INTEGER NOT NULL, slot INTEGER NOT NULL, count INTEGER NOT NULL, due_ms INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (seg, slot)
) WITHOUT ROWID;

-- Segments that were found damaged. They stay in seg for whoever can read something in them, and are never deleted.
CREATE TABLE quarantine (seg INTEGER PRIMARY KEY, found_ms INTEGER NOT NULL);

-- == Views and triggers: what follows is dropped and made anew by every migration ==

-- For people: `sqlite3 -readonly journal.db 'SELECT * FROM v_queue'`, while the broker runs.
CREATE VIEW depth AS
  SELECT queue.vhost, queue.name, coalesce(sum(live), 0) AS messages, coalesce(sum(live_bytes), 0) AS body_bytes
  FROM queue LEFT JOIN segq ON segq.queue BETWEEN queue.id AND queue.id + coalesce(queue.spec->>'$.max_priority', 0)
  GROUP BY queue.id;

CREATE VIEW v_queue AS
  SELECT queue.vhost, queue.name, coalesce(sum(live), 0) AS messages, coalesce(sum(live_bytes), 0) AS body_bytes,
    count(DISTINCT segq.seg) AS segments, 1 + coalesce(queue.spec->>'$.max_priority', 0) AS lanes, queue.id, queue.spec
  FROM queue LEFT JOIN segq ON segq.queue BETWEEN queue.id AND queue.id + coalesce(queue.spec->>'$.max_priority', 0)
  GROUP BY queue.id;

CREATE VIEW v_message_age AS
  SELECT vhost, name, oldest_ms, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - oldest_ms AS age_ms
  FROM (
    SELECT queue.vhost, queue.name, min(seg.committed_ms) AS oldest_ms
    FROM queue
      LEFT JOIN segq ON segq.queue BETWEEN queue.id AND queue.id + coalesce(queue.spec->>'$.max_priority', 0)
      LEFT JOIN seg ON seg.id = segq.seg
    GROUP BY queue.id);

CREATE VIEW v_retained AS
  SELECT vhost, exchange, key, length(body) AS body_bytes, priority, expires_at_ms, persistent, body FROM retained;

CREATE VIEW v_session AS
  SELECT v.vhost, substr(v.name, length('mqtt.session.') + 1) AS client_id, v.name AS queue, v.messages, v.body_bytes,
    count(b.key) AS subscriptions,
    json_group_array(json_object('key', b.key, 'qos', coalesce(b.options->>'$.qos', 2)))
      FILTER (WHERE b.key IS NOT NULL) AS subscribed
  FROM v_queue AS v
    LEFT JOIN binding AS b ON b.vhost = v.vhost AND b.destination = v.name AND NOT b.to_exchange AND b.source <> ''
  WHERE substr(v.name, 1, length('mqtt.session.')) = 'mqtt.session.'
  GROUP BY v.id;

CREATE VIEW v_scheduled AS
  SELECT id, due_ms, strftime('%Y-%m-%dT%H:%M:%SZ', due_ms / 1000, 'unixepoch') AS due, vhost, exchange, key,
    length(body) AS body_bytes, priority, expires_at_ms
  FROM scheduled ORDER BY due_ms, id;

-- The key of a policy is its virtual host, `policy` or `operator`, and its name, with a byte 0 between them.
CREATE VIEW v_policy AS
  WITH
    kept (vhost, rest, value) AS (
      SELECT CAST(substr(CAST(key AS BLOB), 1, instr(CAST(key AS BLOB), x'00') - 1) AS TEXT),
        substr(CAST(key AS BLOB), instr(CAST(key AS BLOB), x'00') + 1), CAST(value AS TEXT)
      FROM state WHERE namespace = 'policy')
  SELECT vhost, CAST(substr(rest, 1, instr(rest, x'00') - 1) AS TEXT) AS kind,
    CAST(substr(rest, instr(rest, x'00') + 1) AS TEXT) AS name, value->>'$.pattern' AS pattern,
    value->>'$."apply-to"' AS apply_to, value->>'$.priority' AS priority, value->>'$.definition' AS definition
  FROM kept WHERE json_valid(value);

-- fed_by: JSON of names. The way of a dead letter is followed through exchanges; of policies nothing is known here.
CREATE VIEW v_dead AS
  WITH RECURSIVE
    feeding (vhost, name, exchange, key) AS (
      SELECT vhost, name, spec->>'$.dead_letter_exchange', spec->>'$.dead_letter_routing_key'
      FROM queue WHERE spec->>'$.dead_letter_exchange' IS NOT NULL),
    way (vhost, name, exchange, key) AS (
      SELECT vhost, name, exchange, key FROM feeding
      UNION
      SELECT way.vhost, way.name, b.destination, way.key
      FROM way JOIN binding AS b ON b.vhost = way.vhost AND b.source = way.exchange AND b.to_exchange),
    fed (vhost, queue, name) AS (
      SELECT vhost, key, name FROM way WHERE exchange = '' AND key IS NOT NULL
      UNION
      SELECT way.vhost, b.destination, way.name
      FROM way
        JOIN binding AS b ON b.vhost = way.vhost AND b.source = way.exchange AND NOT b.to_exchange
        LEFT JOIN exchange AS e ON e.vhost = way.vhost AND e.name = way.exchange
      WHERE way.key IS NULL OR coalesce(e.type, iif(way.exchange = 'amq.direct', 'direct', '')) <> 'direct' OR b.key = way.key)
  SELECT v.vhost, v.name AS queue, v.messages, v.body_bytes, json_group_array(fed.name) AS fed_by
  FROM fed JOIN v_queue AS v ON v.vhost = fed.vhost AND v.name = fed.queue
  GROUP BY v.id;

-- A commit is ONE insert into one of the two views below: one statement, one transaction, one release of Python's lock.
-- JSON arrays carry integers only; texts and blobs travel joined in one blob, as [first byte (from 1), length].
--
-- hot_commit: messages and acknowledgements. One row per new segment; the last row (id NULL without a segment) has the rest:
--   places [[queue, priority, first, seg, last, live, live_bytes], ...]   rows of segq, new or changed
--   acks   [[seg, first byte, length], ...] in bits
--   gone   [[queue, priority, first, seg], ...]                           rows of segq without anything live
CREATE VIEW hot_commit AS
  SELECT 0 AS id, 0 AS n, 0 AS refs, 0 AS crc, 0 AS committed_ms, x'' AS idx, x'' AS body,
    '' AS places, '' AS acks, x'' AS bits, '' AS gone;

CREATE TRIGGER hot_commit_write INSTEAD OF INSERT ON hot_commit BEGIN
  INSERT INTO seg SELECT new.id, new.n, new.refs, new.crc, new.committed_ms, new.idx, new.body WHERE new.id IS NOT NULL;
  INSERT OR REPLACE INTO segq
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6 FROM json_each(new.places);
  INSERT OR REPLACE INTO segack SELECT value->>0, substr(new.bits, value->>1, value->>2) FROM json_each(new.acks);
  DELETE FROM segq WHERE (queue, priority, first_position, seg) IN
    (SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(new.gone));
  DELETE FROM seg WHERE id IN (SELECT value->>3 FROM json_each(new.gone))
    AND NOT EXISTS (SELECT 1 FROM segq WHERE segq.seg = seg.id)
    AND NOT EXISTS (SELECT 1 FROM quarantine WHERE quarantine.seg = seg.id);
  DELETE FROM segack WHERE seg IN (SELECT value->>3 FROM json_each(new.gone))
    AND NOT EXISTS (SELECT 1 FROM segq WHERE segq.seg = segack.seg);
  DELETE FROM redelivered WHERE seg IN (SELECT value->>3 FROM json_each(new.gone))
    AND NOT EXISTS (SELECT 1 FROM segq WHERE segq.seg = redelivered.seg);
END;

-- full_commit: the same and everything else. A text or blob is two integers: first byte, length, in `data`.
--   exchanges  [[vhost, name, type, spec], ...]            exchanges_gone [[vhost, name], ...]
--   queues     [[id, vhost, name, spec], ...]              queues_gone    [id, ...]
--   bindings   [[vhost, source, to_exchange (an integer), destination, key, arguments, options], ...]
--   bindings_gone                                          the same without options
--   retained   [[vhost, exchange, key, persistent, priority, expires_at_ms, crc (four integers), wire_tag, address, wire, body], ...]
--   retained_gone [[vhost, exchange, key], ...]
--   state      [[namespace, key, value], ...]              state_gone     [[namespace, key], ...]
--   purged     [[queue, last queue, seg], ...]             everything of these queues in segments below seg
--   redelivered [[seg, slot, count, due_ms], ...]          quarantined    [[seg, found_ms], ...]
--   scheduled  [[id, due_ms, vhost, exchange, key, priority, expires_at_ms, crc (three integers), wire_tag, address, wire, body], ...]
--   scheduled_gone [id, ...]
--   next_queue                                             an integer, or NULL
CREATE VIEW full_commit AS
  SELECT *, x'' AS data, '' AS exchanges, '' AS exchanges_gone, '' AS queues, '' AS queues_gone, '' AS bindings,
    '' AS bindings_gone, '' AS retained, '' AS retained_gone, '' AS state, '' AS state_gone, '' AS purged, '' AS redelivered,
    '' AS quarantined, '' AS scheduled, '' AS scheduled_gone, 0 AS next_queue
  FROM hot_commit;

CREATE TRIGGER full_commit_write INSTEAD OF INSERT ON full_commit BEGIN
  INSERT OR IGNORE INTO quarantine SELECT value->>0, value->>1 FROM json_each(new.quarantined);

  DELETE FROM seg WHERE id IN
      (SELECT segq.seg FROM json_each(new.purged) AS p CROSS JOIN segq ON segq.queue BETWEEN p.value->>0 AND p.value->>1 AND segq.seg < p.value->>2)
    AND NOT EXISTS
      (SELECT 1 FROM segq WHERE segq.seg = seg.id AND NOT EXISTS
        (SELECT 1 FROM json_each(new.purged) AS p WHERE segq.queue BETWEEN p.value->>0 AND p.value->>1 AND segq.seg < p.value->>2))
    AND NOT EXISTS (SELECT 1 FROM quarantine WHERE quarantine.seg = seg.id);
  DELETE FROM segack WHERE seg IN
      (SELECT segq.seg FROM json_each(new.purged) AS p CROSS JOIN segq ON segq.queue BETWEEN p.value->>0 AND p.value->>1 AND segq.seg < p.value->>2)
    AND NOT EXISTS (SELECT 1 FROM seg WHERE seg.id = segack.seg);
  DELETE FROM redelivered WHERE seg IN
      (SELECT segq.seg FROM json_each(new.purged) AS p CROSS JOIN segq ON segq.queue BETWEEN p.value->>0 AND p.value->>1 AND segq.seg < p.value->>2)
    AND NOT EXISTS (SELECT 1 FROM seg WHERE seg.id = redelivered.seg);
  DELETE FROM segq WHERE (queue, priority, first_position, seg) IN
    (SELECT g.queue, g.priority, g.first_position, g.seg
     FROM json_each(new.purged) AS p CROSS JOIN segq AS g ON g.queue BETWEEN p.value->>0 AND p.value->>1
       AND g.seg < p.value->>2);

  DELETE FROM exchange WHERE (vhost, name) IN
    (SELECT CAST(substr(new.data, value->>0, value->>1) AS TEXT), CAST(substr(new.data, value->>2, value->>3) AS TEXT)
     FROM json_each(new.exchanges_gone));
  INSERT OR REPLACE INTO exchange
    SELECT CAST(substr(new.data, value->>0, value->>1) AS TEXT), CAST(substr(new.data, value->>2, value->>3) AS TEXT),
      CAST(substr(new.data, value->>4, value->>5) AS TEXT), CAST(substr(new.data, value->>6, value->>7) AS TEXT)
    FROM json_each(new.exchanges);

  DELETE FROM queue WHERE id IN (SELECT value FROM json_each(new.queues_gone));
  INSERT OR REPLACE INTO queue
    SELECT value->>0, CAST(substr(new.data, value->>1, value->>2) AS TEXT), CAST(substr(new.data, value->>3, value->>4) AS TEXT),
      CAST(substr(new.data, value->>5, value->>6) AS TEXT)
    FROM json_each(new.queues);

  DELETE FROM binding WHERE (vhost, source, to_exchange, destination, key, arguments) IN
    (SELECT CAST(substr(new.data, value->>0, value->>1) AS TEXT), CAST(substr(new.data, value->>2, value->>3) AS TEXT), value->>4,
      CAST(substr(new.data, value->>5, value->>6) AS TEXT), CAST(substr(new.data, value->>7, value->>8) AS TEXT),
      CAST(substr(new.data, value->>9, value->>10) AS TEXT)
     FROM json_each(new.bindings_gone));
  INSERT OR REPLACE INTO binding
    SELECT CAST(substr(new.data, value->>0, value->>1) AS TEXT), CAST(substr(new.data, value->>2, value->>3) AS TEXT), value->>4,
      CAST(substr(new.data, value->>5, value->>6) AS TEXT), CAST(substr(new.data, value->>7, value->>8) AS TEXT),
      CAST(substr(new.data, value->>9, value->>10) AS TEXT), CAST(substr(new.data, value->>11, value->>12) AS TEXT)
    FROM json_each(new.bindings);

  DELETE FROM retained WHERE (vhost, exchange, key) IN
    (SELECT CAST(substr(new.data, value->>0, value->>1) AS TEXT), CAST(substr(new.data, value->>2, value->>3) AS TEXT),
      CAST(substr(new.data, value->>4, value->>5) AS TEXT)
     FROM json_each(new.retained_gone));
  INSERT OR REPLACE INTO retained (vhost, exchange, key, persistent, priority, expires_at_ms, crc, wire_tag, address, wire, body)
    SELECT CAST(substr(new.data, value->>0, value->>1) AS TEXT), CAST(substr(new.data, value->>2, value->>3) AS TEXT),
      CAST(substr(new.data, value->>4, value->>5) AS TEXT), value->>6, value->>7, value->>8, value->>9,
      CAST(substr(new.data, value->>10, value->>11) AS TEXT), substr(new.data, value->>12, value->>13),
      substr(new.data, value->>14, value->>15), substr(new.data, value->>16, value->>17)
    FROM json_each(new.retained);

  DELETE FROM state WHERE (namespace, key) IN
    (SELECT CAST(substr(new.data, value->>0, value->>1) AS TEXT), CAST(substr(new.data, value->>2, value->>3) AS TEXT)
     FROM json_each(new.state_gone));
  INSERT OR REPLACE INTO state
    SELECT CAST(substr(new.data, value->>0, value->>1) AS TEXT), CAST(substr(new.data, value->>2, value->>3) AS TEXT),
      substr(new.data, value->>4, value->>5)
    FROM json_each(new.state);

  DELETE FROM scheduled WHERE id IN (SELECT value FROM json_each(new.scheduled_gone));
  INSERT OR REPLACE INTO scheduled
      (id, due_ms, vhost, exchange, key, priority, expires_at_ms, crc, wire_tag, address, wire, body)
    SELECT value->>0, value->>1, CAST(substr(new.data, value->>2, value->>3) AS TEXT),
      CAST(substr(new.data, value->>4, value->>5) AS TEXT), CAST(substr(new.data, value->>6, value->>7) AS TEXT),
      value->>8, value->>9, value->>10, CAST(substr(new.data, value->>11, value->>12) AS TEXT),
      substr(new.data, value->>13, value->>14), substr(new.data, value->>15, value->>16), substr(new.data, value->>17, value->>18)
    FROM json_each(new.scheduled);

  UPDATE meta SET value = max(value, new.next_queue) WHERE key = 'next_queue' AND new.next_queue IS NOT NULL;

  INSERT INTO hot_commit VALUES (new.id, new.n, new.refs, new.crc, new.committed_ms, new.idx, new.body,
    new.places, new.acks, new.bits, new.gone);

  INSERT OR REPLACE INTO redelivered SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(new.redelivered)
    WHERE EXISTS (SELECT 1 FROM seg WHERE seg.id = value->>0);
END;
