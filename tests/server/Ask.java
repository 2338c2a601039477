import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Java's own client as it comes: over http it asks for h2c with its first request. Ask URL KEY CALLS */
public class Ask {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        String body = "{\"query\": \"apples\", \"documents\": [\"pears\", \"apples\", \"" + "x ".repeat(40_000) + "\"], \"truncate_prompt_tokens\": -1}";
        HttpRequest request = HttpRequest.newBuilder(URI.create(args[0] + "/v1/rerank"))
            .header("Content-Type", "application/json")
            .header("Authorization", "Bearer " + args[1])
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        for (int call = 0; call < Integer.parseInt(args[2]); call++) {
            HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(response.statusCode() + " " + response.version() + " " + response.body());
        }
    }
}
