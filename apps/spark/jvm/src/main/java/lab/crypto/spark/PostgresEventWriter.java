package lab.crypto.spark;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Types;
import java.util.Properties;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.apache.spark.sql.ForeachWriter;
import org.apache.spark.sql.Row;

/**
 * Writes judged Kafka records to PostgreSQL: events to the price table, the others to the table of rejects.
 *
 * <p>A row is committed when the batch is full or {@code flushIntervalMs} after the last flush, whichever comes first:
 * Real-Time Mode keeps a task open for minutes, so that a flush on close alone would come minutes late.
 *
 * <p>Delivery: nothing is ever dropped. Any error fails the task, Spark starts again at the last committed offsets, and
 * {@code ON CONFLICT DO NOTHING} makes the rows that were written already harmless.
 *
 * <p>Rows hold, by position: symbol, price, user, timestamp, event_id, produced_at, kafka_partition, kafka_offset,
 * kafka_timestamp, reason, payload. Reason is null for an event.
 */
public final class PostgresEventWriter extends ForeachWriter<Row> {
    private static final long serialVersionUID = 1L;

    private static final int KAFKA_PARTITION = 6;
    private static final int KAFKA_OFFSET = 7;
    private static final int KAFKA_TIMESTAMP = 8;
    private static final int REASON = 9;
    private static final int PAYLOAD = 10;

    /** Payloads are up to some MiB each: they must not pile up by the thousand. */
    private static final int MAX_PENDING_PAYLOAD_BYTES = 8 * 1024 * 1024;

    private final String url;
    private final String user;
    private final String password;
    private final String pricesTable;
    private final String rejectedTable;
    private final long flushIntervalMs;
    private final int maxRows;

    private transient Connection connection;
    private transient PreparedStatement prices;
    private transient PreparedStatement rejects;
    private transient ScheduledExecutorService timer;
    private transient int pendingPrices;
    private transient int pendingRejects;
    private transient long pendingPayloadBytes;
    private transient SQLException failure;

    /**
     * @param url JDBC URL without credentials
     * @param pricesTable table of the events, as it stands in SQL
     * @param rejectedTable table of the rejects, as it stands in SQL
     * @param flushIntervalMs how long a row may wait for others
     * @param maxRows how many rows may wait
     */
    public PostgresEventWriter(
            String url,
            String user,
            String password,
            String pricesTable,
            String rejectedTable,
            long flushIntervalMs,
            int maxRows) {
        this.url = url;
        this.user = user;
        this.password = password;
        this.pricesTable = pricesTable;
        this.rejectedTable = rejectedTable;
        this.flushIntervalMs = flushIntervalMs;
        this.maxRows = maxRows;
    }

    @Override
    public boolean open(long partitionId, long epochId) {
        try {
            Properties properties = new Properties();
            properties.setProperty("user", user);
            properties.setProperty("password", password);
            properties.setProperty("reWriteBatchedInserts", "true");
            // Lets the server read event_id, a string here, as the uuid it is there.
            properties.setProperty("stringtype", "unspecified");
            properties.setProperty("ApplicationName", "crypto_spark realtime " + partitionId);
            properties.setProperty("connectTimeout", "10");
            properties.setProperty("socketTimeout", "60");
            properties.setProperty("tcpKeepAlive", "true");
            // Not through DriverManager, which does not see a driver that came with spark.jars.
            connection = new org.postgresql.Driver().connect(url, properties);
            connection.setAutoCommit(false);
            prices = connection.prepareStatement(
                    "INSERT INTO " + pricesTable + " (symbol, price, \"user\", timestamp, event_id, produced_at,"
                            + " kafka_partition, kafka_offset) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING");
            rejects = connection.prepareStatement(
                    "INSERT INTO " + rejectedTable + " (engine, kafka_partition, kafka_offset, kafka_timestamp, reason,"
                            + " payload) VALUES ('spark', ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING");
        } catch (SQLException error) {
            closeQuietly();
            throw new IllegalStateException("Cannot write to PostgreSQL at " + url + ": " + error.getMessage(), error);
        }
        pendingPrices = 0;
        pendingRejects = 0;
        pendingPayloadBytes = 0;
        failure = null;
        timer = Executors.newSingleThreadScheduledExecutor(task -> {
            Thread thread = new Thread(task, "postgres-flush-" + partitionId);
            thread.setDaemon(true);
            return thread;
        });
        timer.scheduleWithFixedDelay(this::flushOnTimer, flushIntervalMs, flushIntervalMs, TimeUnit.MILLISECONDS);
        return true;
    }

    @Override
    public synchronized void process(Row row) {
        throwFailure();
        try {
            if (row.isNullAt(REASON)) {
                addPrice(row);
            } else {
                addReject(row);
            }
            if (pendingPrices + pendingRejects >= maxRows || pendingPayloadBytes >= MAX_PENDING_PAYLOAD_BYTES) {
                flush();
            }
        } catch (SQLException error) {
            failure = error;
            throwFailure();
        }
    }

    @Override
    public void close(Throwable errorOrNull) {
        if (timer != null) {
            timer.shutdownNow();
        }
        synchronized (this) {
            try {
                if (connection == null) {
                    return;
                }
                if (errorOrNull == null) {
                    throwFailure();
                    flush();
                }
            } catch (SQLException error) {
                failure = error;
                throwFailure();
            } finally {
                closeQuietly();
            }
        }
    }

    private void addPrice(Row row) throws SQLException {
        prices.setString(1, row.getString(0));
        prices.setDouble(2, row.getDouble(1));
        prices.setString(3, row.getString(2));
        prices.setLong(4, row.getLong(3));
        prices.setString(5, row.getString(4));
        prices.setLong(6, row.getLong(5));
        prices.setInt(7, row.getInt(KAFKA_PARTITION));
        prices.setLong(8, row.getLong(KAFKA_OFFSET));
        prices.addBatch();
        pendingPrices++;
    }

    private void addReject(Row row) throws SQLException {
        rejects.setInt(1, row.getInt(KAFKA_PARTITION));
        rejects.setLong(2, row.getLong(KAFKA_OFFSET));
        rejects.setLong(3, row.getLong(KAFKA_TIMESTAMP));
        rejects.setString(4, row.getString(REASON));
        if (row.isNullAt(PAYLOAD)) {
            rejects.setNull(5, Types.BINARY);
        } else {
            byte[] payload = (byte[]) row.get(PAYLOAD);
            rejects.setBytes(5, payload);
            pendingPayloadBytes += payload.length;
        }
        rejects.addBatch();
        pendingRejects++;
    }

    private void flush() throws SQLException {
        if (pendingPrices + pendingRejects == 0) {
            return;
        }
        if (pendingPrices > 0) {
            prices.executeBatch();
        }
        if (pendingRejects > 0) {
            rejects.executeBatch();
        }
        connection.commit();
        pendingPrices = 0;
        pendingRejects = 0;
        pendingPayloadBytes = 0;
    }

    /** An error here has no caller: it is kept for the task's own thread, which fails at its next row or at the end. */
    private synchronized void flushOnTimer() {
        if (failure != null) {
            return;
        }
        try {
            flush();
        } catch (SQLException error) {
            failure = error;
        } catch (RuntimeException error) {
            failure = new SQLException(error);
        }
    }

    private void throwFailure() {
        if (failure != null) {
            throw new IllegalStateException("Writing to PostgreSQL failed: " + failure.getMessage(), failure);
        }
    }

    private void closeQuietly() {
        if (connection != null) {
            try {
                connection.close();
            } catch (SQLException ignored) {
                // What was not committed is written again; what was committed is safe.
            }
            connection = null;
        }
    }
}
