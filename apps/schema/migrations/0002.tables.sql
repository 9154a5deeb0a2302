-- The tables of docs/contract.md, alike for both engines.
-- depends: 0001.roles

-- Drops an UPDATE: what was written first stays, with its commit time, whatever an engine replays.
CREATE FUNCTION keep_first_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END
$$;

CREATE TABLE crypto_prices_realtime (
    symbol          text             NOT NULL,
    price           double precision NOT NULL,
    "user"          text             NOT NULL,
    timestamp       bigint           NOT NULL,
    event_id        uuid             PRIMARY KEY,
    produced_at     bigint           NOT NULL,
    kafka_partition integer          NOT NULL,
    kafka_offset    bigint           NOT NULL
);
COMMENT ON TABLE crypto_prices_realtime IS 'Events as written by Spark';
COMMENT ON COLUMN crypto_prices_realtime.timestamp IS 'Event time, epoch milliseconds';
COMMENT ON COLUMN crypto_prices_realtime.produced_at IS 'When the producer made the event, epoch microseconds';

CREATE TABLE crypto_prices_flink (LIKE crypto_prices_realtime INCLUDING ALL);
COMMENT ON TABLE crypto_prices_flink IS 'Events as written by Flink';

CREATE INDEX crypto_prices_realtime_symbol_timestamp ON crypto_prices_realtime (symbol, timestamp DESC);
CREATE INDEX crypto_prices_flink_symbol_timestamp ON crypto_prices_flink (symbol, timestamp DESC);

CREATE TABLE candles_1m_spark (
    symbol       text             NOT NULL,
    window_start bigint           NOT NULL,
    open         double precision NOT NULL,
    high         double precision NOT NULL,
    low          double precision NOT NULL,
    close        double precision NOT NULL,
    event_count  bigint           NOT NULL,
    PRIMARY KEY (symbol, window_start)
);
COMMENT ON TABLE candles_1m_spark IS 'One-minute candles by event time, as computed by Spark';
COMMENT ON COLUMN candles_1m_spark.window_start IS 'Epoch milliseconds';

CREATE TABLE candles_1m_flink (LIKE candles_1m_spark INCLUDING ALL);
COMMENT ON TABLE candles_1m_flink IS 'One-minute candles by event time, as computed by Flink';

CREATE TABLE rejected_messages (
    engine          text        NOT NULL CHECK (engine IN ('spark', 'flink')),
    kafka_partition integer     NOT NULL,
    kafka_offset    bigint      NOT NULL,
    -- Offsets restart when a topic is recreated; with the record's time the key stays unique.
    kafka_timestamp bigint      NOT NULL,
    reason          text        NOT NULL,
    payload         bytea,
    PRIMARY KEY (engine, kafka_partition, kafka_offset, kafka_timestamp)
);
COMMENT ON TABLE rejected_messages IS 'Messages that are no events, once per engine';
COMMENT ON COLUMN rejected_messages.kafka_timestamp IS 'Record timestamp, epoch milliseconds';
COMMENT ON COLUMN rejected_messages.payload IS 'The raw value; NULL where it was null';

CREATE TRIGGER keep_first_row BEFORE UPDATE ON crypto_prices_realtime FOR EACH ROW EXECUTE FUNCTION keep_first_row();
CREATE TRIGGER keep_first_row BEFORE UPDATE ON crypto_prices_flink FOR EACH ROW EXECUTE FUNCTION keep_first_row();
CREATE TRIGGER keep_first_row BEFORE UPDATE ON candles_1m_spark FOR EACH ROW EXECUTE FUNCTION keep_first_row();
CREATE TRIGGER keep_first_row BEFORE UPDATE ON candles_1m_flink FOR EACH ROW EXECUTE FUNCTION keep_first_row();
CREATE TRIGGER keep_first_row BEFORE UPDATE ON rejected_messages FOR EACH ROW EXECUTE FUNCTION keep_first_row();

-- Spark has no JDBC upsert: executors append here, then one INSERT ... SELECT ... ON CONFLICT moves a batch over.
-- Unlogged and without a key, because a lost row is read again from Kafka with its batch.
CREATE UNLOGGED TABLE spark_staging_prices (
    batch_key text NOT NULL,
    LIKE crypto_prices_realtime
);
CREATE UNLOGGED TABLE spark_staging_rejected (
    batch_key text NOT NULL,
    LIKE rejected_messages
);
CREATE UNLOGGED TABLE spark_staging_candles (
    batch_key text NOT NULL,
    LIKE candles_1m_spark
);

-- ON CONFLICT DO UPDATE (all that Flink's JDBC sink can say) needs UPDATE and SELECT beside INSERT.
GRANT SELECT, INSERT, UPDATE ON crypto_prices_realtime, candles_1m_spark, rejected_messages TO spark_writer;
GRANT SELECT, INSERT, DELETE, TRUNCATE
    ON spark_staging_prices, spark_staging_rejected, spark_staging_candles TO spark_writer;
GRANT SELECT, INSERT, UPDATE ON crypto_prices_flink, candles_1m_flink, rejected_messages TO flink_writer;
GRANT SELECT ON crypto_prices_realtime, crypto_prices_flink, candles_1m_spark, candles_1m_flink, rejected_messages
    TO lab_reader;
