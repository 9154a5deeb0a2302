package cryptostream.flink;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.AdminClient;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.BigIntType;
import org.apache.flink.table.types.logical.IntType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.VarBinaryType;
import org.apache.flink.util.Collector;

/**
 * The topic as rows: raw bytes, so that malformed values are seen and not skipped, with a watermark per partition.
 *
 * <p>Why not the connector's SQL table: there every record counts for its partition's watermark and idleness, see
 * {@link EventTimes}; and behind the source, partitions can no longer be told apart, so that a backlog read partition
 * by partition would come too late for its own candles.
 */
public final class RecordSource {

    static final int VALUE = 0;

    private static final long TOPIC_ID_TIMEOUT_S = 60;

    private RecordSource() {}

    /** Columns of a record, as crypto_flink/transform.py expects them. */
    public static LogicalType rowType() {
        return RowType.of(
                new LogicalType[] {
                    new VarBinaryType(VarBinaryType.MAX_LENGTH), new IntType(), new BigIntType(), new BigIntType()
                },
                new String[] {"value", "kafka_partition", "kafka_offset", "kafka_timestamp"});
    }

    /**
     * Adds the source to a job.
     *
     * @param name of the consumer group, and prefix of the client ids
     * @param earliest whether a job without state starts at the topic's beginning, and not at its end
     * @param fetchMaxWaitMs how long a broker may keep a request for messages that are not there yet
     * @param typeInformation of rows of {@link #rowType()}
     */
    public static DataStream<RowData> add(
            StreamExecutionEnvironment environment,
            String bootstrapServers,
            String topic,
            String name,
            boolean earliest,
            int fetchMaxWaitMs,
            EventRules rules,
            long watermarkDelayMs,
            long idleTimeoutMs,
            TypeInformation<RowData> typeInformation) {
        KafkaSource<RowData> source =
                KafkaSource.<RowData>builder()
                        .setBootstrapServers(bootstrapServers)
                        .setTopics(topic)
                        .setGroupId(name)
                        .setClientIdPrefix(name)
                        .setProperty("fetch.max.wait.ms", Integer.toString(fetchMaxWaitMs))
                        .setStartingOffsets(
                                new StrictOffsets(
                                        earliest ? OffsetsInitializer.earliest() : OffsetsInitializer.latest()))
                        .setDeserializer(new Rows(typeInformation))
                        .build();
        EventTimes eventTimes =
                new EventTimes(rules, Duration.ofMillis(watermarkDelayMs), Duration.ofMillis(idleTimeoutMs));
        return environment.fromSource(source, eventTimes, "records").uid("records-source");
    }

    /**
     * Asks the brokers for a topic's id. A topic that is deleted and created again has another one.
     *
     * @throws Exception the brokers do not answer, or have no such topic
     */
    public static String topicId(String bootstrapServers, String topic) throws Exception {
        try (AdminClient admin =
                AdminClient.create(Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, (Object) bootstrapServers))) {
            return admin.describeTopics(List.of(topic))
                    .allTopicNames()
                    .get(TOPIC_ID_TIMEOUT_S, TimeUnit.SECONDS)
                    .get(topic)
                    .topicId()
                    .toString();
        }
    }

    private record Rows(TypeInformation<RowData> typeInformation) implements KafkaRecordDeserializationSchema<RowData> {

        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<RowData> rows) {
            rows.collect(
                    GenericRowData.of(record.value(), record.partition(), record.offset(), record.timestamp()));
        }

        @Override
        public TypeInformation<RowData> getProducedType() {
            return typeInformation;
        }
    }
}
