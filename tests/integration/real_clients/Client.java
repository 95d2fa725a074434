// Makes the requests of standard input with java.net.http.HttpClient, one after another.
// A line asks: method, url, fields and body in base64 (`-`: none), by tabs. A line answers: status, fields, body.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Base64;

public class Client {
    static String encoded(byte[] data) {
        return Base64.getEncoder().encodeToString(data);
    }

    static byte[] decoded(String text) {
        return Base64.getDecoder().decode(text);
    }

    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newBuilder()
            .version(HttpClient.Version.valueOf(arguments[0]))
            .followRedirects(HttpClient.Redirect.NEVER)
            .build();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] ask = line.split("\t", -1);
            HttpRequest.BodyPublisher body = ask[3].equals("-")
                ? HttpRequest.BodyPublishers.noBody()
                : HttpRequest.BodyPublishers.ofByteArray(decoded(ask[3]));
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(ask[1])).method(ask[0], body);
            for (String field : new String(decoded(ask[2])).split("\n")) {
                int colon = field.indexOf(": ");
                if (colon > 0) request.header(field.substring(0, colon), field.substring(colon + 2));
            }
            HttpResponse<byte[]> answer = client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
            StringBuilder fields = new StringBuilder();
            answer.headers().map().forEach((name, values) ->
                values.forEach(value -> fields.append(name).append(": ").append(value).append("\n")));
            System.out.println(answer.statusCode() + "\t" + encoded(fields.toString().getBytes()) + "\t"
                + encoded(answer.body()));
        }
    }
}
