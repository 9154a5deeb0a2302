package cryptostream.flink;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharsetDecoder;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Locale;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonParser;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonToken;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.StreamReadConstraints;

/**
 * Validates one Kafka value by docs/contract.md, in one pass.
 *
 * <p>Why not SQL's built-in functions: IS JSON, JSON_QUERY and PARSE_JSON all stop after the first document and so
 * accept <code>{...}{}</code>; VARIANT has no casts in this release; and a CASE over JSON_VALUE calls may see the
 * document of an earlier row (FLINK-40233).
 *
 * <p>Not thread-safe: an instance belongs to one thread.
 */
final class EventParser {

    private static final int EVENT_ID = 0;
    private static final int SYMBOL = 1;
    private static final int PRICE = 2;
    private static final int USER = 3;
    private static final int TIMESTAMP = 4;
    private static final int PRODUCED_AT = 5;

    /** In the order in which the contract looks at them. */
    private static final String[] FIELDS = {"event_id", "symbol", "price", "user", "timestamp", "produced_at"};

    private static final int UUID_LENGTH = 36;

    private enum State {
        MISSING,
        WRONG_TYPE,
        VALID
    }

    /** Objects and arrays around a value, the outermost included, that the contract accepts. */
    private static final int MAX_NESTING_DEPTH = 500;

    /** The size limit bounds numbers and texts, and only the contract's own limits may reject an event. */
    private static final JsonFactory JSON =
            JsonFactory.builder()
                    .streamReadConstraints(
                            StreamReadConstraints.builder()
                                    .maxNestingDepth(MAX_NESTING_DEPTH)
                                    .maxNumberLength(Integer.MAX_VALUE)
                                    .maxStringLength(Integer.MAX_VALUE)
                                    .maxNameLength(Integer.MAX_VALUE)
                                    .build())
                    // Field names come from outside: a name that is never seen again must not stay for ever.
                    .configure(JsonFactory.Feature.CANONICALIZE_FIELD_NAMES, false)
                    .configure(JsonFactory.Feature.INTERN_FIELD_NAMES, false)
                    .build();

    private final EventRules rules;
    private final CharsetDecoder decoder =
            StandardCharsets.UTF_8
                    .newDecoder()
                    .onMalformedInput(CodingErrorAction.REPORT)
                    .onUnmappableCharacter(CodingErrorAction.REPORT);

    private CharBuffer characters = CharBuffer.allocate(1024);
    private byte[] lastValue;
    private ParsedEvent lastEvent;

    private final State[] states = new State[FIELDS.length];
    private String eventId;
    private String symbol;
    private double price;
    private String user;
    private long timestampMs;
    private long producedAtUs;

    EventParser(EventRules rules) {
        this.rules = rules;
    }

    EventRules rules() {
        return rules;
    }

    /**
     * Validates a value; null is a value too.
     *
     * <p>The last answer is kept, because the source's event time and the columns ask for the same value in turn, and
     * Flink has copied the array in between.
     */
    ParsedEvent parse(byte[] value) {
        if (value == null) {
            return ParsedEvent.rejected("null_value");
        }
        if (value.length > rules.maxEventBytes()) {
            return ParsedEvent.rejected("too_large");
        }
        if (lastValue == null || !Arrays.equals(lastValue, value)) {
            lastEvent = validate(value);
            lastValue = value;
        }
        return lastEvent;
    }

    private ParsedEvent validate(byte[] value) {
        if (!decode(value)) {
            return ParsedEvent.rejected("not_utf8");
        }
        boolean object;
        // From characters: given bytes, the parser would guess at UTF-16 and UTF-32.
        try (JsonParser json = JSON.createParser(characters.array(), 0, characters.limit())) {
            JsonToken first = json.nextToken();
            if (first == null) {
                return ParsedEvent.rejected("not_json");
            }
            object = first == JsonToken.START_OBJECT;
            if (object) {
                readFields(json);
            } else {
                json.skipChildren();
                json.getText(); // a string is read to its end only when it is asked for
            }
            if (json.nextToken() != null) {
                return ParsedEvent.rejected("not_json"); // a second document
            }
        } catch (IOException e) {
            return ParsedEvent.rejected("not_json");
        }
        return object ? checkFields() : ParsedEvent.rejected("not_object");
    }

    private boolean decode(byte[] value) {
        if (characters.capacity() < value.length) {
            characters = CharBuffer.allocate(rules.maxEventBytes());
        }
        characters.clear();
        decoder.reset();
        if (decoder.decode(ByteBuffer.wrap(value), characters, true).isError()) {
            return false;
        }
        decoder.flush(characters);
        characters.flip();
        return true;
    }

    private void readFields(JsonParser json) throws IOException {
        Arrays.fill(states, State.MISSING);
        while (json.nextToken() != JsonToken.END_OBJECT) {
            int field = fieldOf(json.currentName());
            JsonToken token = json.nextToken();
            if (field >= 0) {
                states[field] = token == JsonToken.VALUE_NULL ? State.MISSING : readField(json, field, token);
            }
            json.skipChildren();
        }
    }

    private State readField(JsonParser json, int field, JsonToken token) throws IOException {
        boolean valid =
                switch (field) {
                    case EVENT_ID -> token == JsonToken.VALUE_STRING && isUuid(eventId = json.getText());
                    case SYMBOL -> token == JsonToken.VALUE_STRING && (symbol = json.getText()) != null;
                    // PostgreSQL's text cannot hold U+0000: such a row would stop the sink, and with it the job.
                    case USER -> token == JsonToken.VALUE_STRING && (user = json.getText()).indexOf('\0') < 0;
                    case PRICE -> {
                        price = token.isNumeric() ? Double.parseDouble(json.getText()) : Double.NaN;
                        yield token.isNumeric();
                    }
                    default -> token == JsonToken.VALUE_NUMBER_INT && readLong(json, field);
                };
        return valid ? State.VALID : State.WRONG_TYPE;
    }

    private boolean readLong(JsonParser json, int field) throws IOException {
        long number;
        try {
            number = Long.parseLong(json.getText());
        } catch (NumberFormatException e) {
            return false; // does not fit into 64 bits
        }
        if (field == TIMESTAMP) {
            timestampMs = number;
        } else {
            producedAtUs = number;
        }
        return true;
    }

    private ParsedEvent checkFields() {
        for (int field = 0; field < FIELDS.length; field++) {
            if (states[field] == State.MISSING) {
                return ParsedEvent.rejected("missing_field:" + FIELDS[field]);
            }
            if (states[field] == State.WRONG_TYPE) {
                return ParsedEvent.rejected("wrong_type:" + FIELDS[field]);
            }
        }
        if (!rules.symbols().contains(symbol)) {
            return ParsedEvent.rejected("unknown_symbol");
        }
        if (!(price > 0) || Double.isInfinite(price)) {
            return ParsedEvent.rejected("out_of_range:price");
        }
        if (timestampMs < EventRules.MIN_TIMESTAMP_MS || timestampMs >= EventRules.END_TIMESTAMP_MS) {
            return ParsedEvent.rejected("out_of_range:timestamp");
        }
        return new ParsedEvent(
                null, eventId.toLowerCase(Locale.ROOT), symbol, price, user, timestampMs, producedAtUs);
    }

    private static int fieldOf(String name) {
        return switch (name) {
            case "event_id" -> EVENT_ID;
            case "symbol" -> SYMBOL;
            case "price" -> PRICE;
            case "user" -> USER;
            case "timestamp" -> TIMESTAMP;
            case "produced_at" -> PRODUCED_AT;
            default -> -1;
        };
    }

    private static boolean isUuid(String text) {
        if (text.length() != UUID_LENGTH) {
            return false;
        }
        for (int i = 0; i < UUID_LENGTH; i++) {
            char c = text.charAt(i);
            boolean hyphen = i == 8 || i == 13 || i == 18 || i == 23;
            boolean hex = c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F';
            if (hyphen ? c != '-' : !hex) {
                return false;
            }
        }
        return true;
    }

    /** The calling thread's parser: the functions of one task share it, and so parse an event once between them. */
    static EventParser ofThread(EventRules rules) {
        EventParser parser = PARSERS.get();
        if (parser == null || !parser.rules().equals(rules)) {
            parser = new EventParser(rules);
            PARSERS.set(parser);
        }
        return parser;
    }

    private static final ThreadLocal<EventParser> PARSERS = new ThreadLocal<>();
}
